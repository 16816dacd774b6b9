"""The number of kernels does not grow: a small model's engines by method, beside what a file holds.

The file is written anew by `python benchmarks/kernels.py --hold tests/data/kernels/held.json`, which refuses growth.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import pytest

from vitrim.exporter.core.targets import PRECISIONS
from vitrim.exporter.pruning.methods import DEFAULT, FLOOR, METHODS
from vitrim.exporter.runtime.tensorrt.family import RTX
from vitrim.exporter.runtime.tensorrt.versions import builder_missing

ROOT = Path(__file__).resolve().parents[2]
EVERY_TIME = (FLOOR, DEFAULT, "evit")
HELD = ROOT / "tests" / "data" / "kernels" / "held.json"


@pytest.fixture(scope="module")
def kernels() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("vitrim_benchmarks_kernels", ROOT / "benchmarks" / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def held(kernels: Any) -> dict[str, Any]:
    """The counts of the builder that is here."""
    reason = builder_missing(RTX)
    if reason:
        pytest.skip(reason)
    data: dict[str, Any] = json.loads(HELD.read_text())
    if data["builder"] != kernels.builder_version():
        pytest.skip(f"the counts are of builder {data['builder']}, here is {kernels.builder_version()}")
    return data


def precisions_of(method: str, before: dict[str, dict[str, int]]) -> Collection[str]:
    """What is built: of methods whose engines have the kernels of the floor's, in one precision; bf16 is fp16's twin.

    It has the same graph with another type, and the same kernels, so it is built of the method that has the most.
    """
    own = before[method]
    if method != FLOOR and own == before[FLOOR]:
        return ("fp16",)
    most = max(before, key=lambda one: before[one]["bf16"])
    return PRECISIONS if method == most else [name for name in PRECISIONS if name != "bf16"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [one if one in EVERY_TIME else pytest.param(one, marks=pytest.mark.exhaustive) for one in METHODS]
)
def test_every_method_builds_in_every_precision_with_no_more_kernels(
    kernels: Any, held: dict[str, Any], method: str
) -> None:
    before = held["kernels"][method]
    assert set(before) == set(PRECISIONS)
    assert before["bf16"] == before["fp16"]
    engines = kernels.small_engines(method, precisions_of(method, held["kernels"]))
    for precision, engine in engines.items():
        assert engine.layers.passed, engine.layers.verdict
        assert not engine.layers.wrong
        floats = {"fp16", "fp32"} if precision == "int8" else {"fp32"}
        assert set(engine.layers.precisions) <= {precision, *floats}
        assert engine.layers.precisions[precision] >= 4  # one in each block
        attention = engine.layers.attention
        assert (attention.fused == 4) is (precision != "fp32"), attention  # which fuses none in float32
    assert kernels.grown(method, before, {name: len(engine.kernels) for name, engine in engines.items()}) == []


def test_growth_is_refused_and_the_file_stays(kernels: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = {"evit": {"fp16": 50, "int8": 60}, "tome": {"fp16": 70, "int8": 80}}
    monkeypatch.setattr(kernels, "small_counts", lambda method: dict(counts[method]))
    monkeypatch.setattr(kernels, "builder_version", lambda: "1.7")
    path = tmp_path / "held.json"
    kernels.hold(path, ("evit", "tome"))
    assert json.loads(path.read_text()) == {"builder": "1.7", "kernels": counts}
    counts["tome"]["int8"], counts["evit"]["fp16"] = 81, 49
    with pytest.raises(click.ClickException, match="tome in int8 has 81 kernels, 80 before"):
        kernels.hold(path, ("evit", "tome"))
    assert json.loads(path.read_text())["kernels"]["evit"]["fp16"] == 50
    kernels.hold(path, ("evit",))
    assert json.loads(path.read_text())["kernels"] == {
        "evit": {"fp16": 49, "int8": 60},
        "tome": {"fp16": 70, "int8": 80},
    }
    monkeypatch.setattr(kernels, "builder_version", lambda: "1.8")  # another compiler, other kernels
    kernels.hold(path, ("tome",))
    assert json.loads(path.read_text()) == {"builder": "1.8", "kernels": {"tome": {"fp16": 70, "int8": 81}}}


def test_rows_of_the_table(kernels: Any) -> None:
    dense = kernels.Counts(66, 66, 0, {}, 6, 6, 0, {})
    found = kernels.Counts(76, 65, 4, {"1": 4, "3": 7, "5": 0}, 6, 6, 2, {"softmax": 3, "top-k": 6, "product": 26})
    assert kernels.lines_of("evit", "fp16", found, dense) == (
        "| evit | fp16 | 66 | 65 | 76 | +11 | 1:+4 3:+7 | +7 | 6 of 6 | 3 | 6 | 2 |"
    )
