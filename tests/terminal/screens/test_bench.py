"""Latencies on a screen, of one bundle and of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from printed import rows_of

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.runtime.bench.report import TimedBundle, Untimed, report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.machine.energy import Energy, GraphEnergy


def test_what_bench_and_compare_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a benchmark may hold, on the screen; and two of them side by side."""
    pruned = np.linspace(4.9, 5.1, 60)
    where = {"cpu": "Orin", "runtime": "tensorrt-8.5.2", "clocks": "floating", "clock_advice": ["sudo jetson_clocks"]}
    spent = GraphEnergy(median=0.25, range=(0.24, 0.26), above_idle=True, with_idle=0.3, watts=9.0)
    result = replace(
        report({"dense": 2 * pruned, "pruned": pruned}, 2, where),
        modes={"plain": summarize(pruned), "cuda_graph": Untimed("it cannot be recorded")},
        energy=Energy({"pruned": spent}, idle_watts=3.5, meter="ina3221", counted=("VDD_IN",)),
        bundle=TimedBundle(precision="fp16", graph_sha256="a"),
    )
    monkeypatch.setattr(api, "bench", lambda bundle, **options: result)
    page = CliRunner().invoke(cli, ["bench", "out", "--energy"])
    for line in (
        "pruned, plain: 5.000 ms",
        "pruned, cuda_graph: it cannot be recorded",
        "Energy: pruned 0.25 J per image above idle (0.24 to 0.26)",
        "Energy: idle 3.50 W, by ina3221: VDD_IN",
        "Clocks: floating; to lock them: sudo jetson_clocks",
    ):
        assert line in page.output
    for name in "ab":
        result.write(tmp_path / f"{name}.json")
    page = CliRunner().invoke(cli, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert page.exit_code == 0
    cells = rows_of(page.output)
    assert ["runtime", "tensorrt-8.5.2", "tensorrt-8.5.2"] in cells
    assert ["J/image", "0.25", "0.25"] in cells
    assert ["over dense", "2.00", "2.00"] in cells
    assert "no difference is claimed between b.json and a.json" in page.output
    assert "Warning: b.json: its clocks were floating: sudo jetson_clocks" in page.output
