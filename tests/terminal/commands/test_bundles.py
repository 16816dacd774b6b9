"""Commands on bundles: what is a failure of theirs, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from evaluated_bundles import make_bundle

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.runtime.bench.report import report


def test_what_only_a_cpu_ran_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"dense": np.linspace(4.9, 5.1, 60), "pruned": np.linspace(9.8, 10.2, 60)}
    where = {"cpu": "x", "runtime": "onnxruntime-cpu", "cpu_only": "the graph is for trt-10.3"}
    monkeypatch.setattr(api, "bench", lambda bundle, **options: report(times, 1, where))
    page = CliRunner().invoke(cli, ["bench", "out"])
    assert page.exit_code == 0
    assert "Note: the graph is for trt-10.3" in page.stdout
    assert "Speed: not judged: 0.50 times" in page.stdout


def test_what_excludes_each_other_is_a_usage_error() -> None:
    page = CliRunner().invoke(cli, ["build", "out", "--timing-cache", "x", "--no-timing-cache"])
    assert page.exit_code == 2  # of click; `main` makes 3 of it
    assert "exclude each other" in page.output


def test_a_model_for_triton_says_where_it_went(tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "out")
    page = CliRunner().invoke(cli, ["triton", str(out), "-o", str(tmp_path / "models"), "--json"])
    assert json.loads(page.stdout) == {"written": str(tmp_path / "models" / "out")}


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("check", "out"), "check('out'"),
        (("bench", "out"), "bench('out'"),
        (("build", "out"), "build('out'"),
        (("inspect", "out"), "inspect('out'"),
        (("evaluate", "out", "--images", "photos"), "evaluate_bundle('out', 'photos'"),
    ],
)
def test_a_size_of_a_bundle_can_be_named(words: tuple[str, ...], call: str) -> None:
    page = CliRunner().invoke(cli, [*words, "--size", "192x256", "--print-python"])
    assert page.exit_code == 0
    assert f"api.{call}, size='192x256')" in page.stdout
