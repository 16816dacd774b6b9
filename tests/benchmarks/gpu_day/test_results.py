"""What a step finds is read as what its kind makes, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_day.plan import Step
from gpu_day.results import Engines, Graphs, Held, InTorch, result_of

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import Record
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.machine.energy import Energy
from vitrim.exporter.runtime.rungs import compare

AT = Step("time", "m", 64, "trt-rtx", "evit", "int8", 0.5, "plain")
LOGITS = {"logits": np.ones((4, 3), dtype=np.float32)}
SAMPLES = {kind: np.full(20, value) for kind, value in (("dense", 4.0), ("pruned", 2.0), ("floor", 1.6))}
SPREAD = summarize(np.full(9, 6.0))
FOUND: dict[str, Record] = {
    "export": Graphs({"pruned": "a", "dense": "b"}, 2.9, 1.0),
    "build": Engines({"pruned": "a"}, {"pruned": 10}, None, None, "not looked into", "10.3.0"),
    "parity": Held(compare("x", LOGITS, LOGITS, atol=1, tie=0), 1.5),
    "time": report(SAMPLES, 64, {}),
    "energy": report(SAMPLES, 64, {}),
    "torch": InTorch({"plain": SPREAD, "cuda_graph": SPREAD}, Energy(None, "no meter"), "2.9"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_what_was_written_is_read_again_and_other_kinds_are_refused(kind: str) -> None:
    step = AT.but(kind)
    read = result_of(step, FOUND[kind].to_json())
    assert read.to_json() == FOUND[kind].to_json()
    for other, wrong in FOUND.items():
        if type(wrong) is not type(FOUND[kind]):
            with pytest.raises(InputError, match=kind):
                result_of(AT.but(kind), wrong.to_json())
            assert other != kind


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("export", {"sha256": {}}, "says nothing of pruned"),
        ("export", {"gmacs": {"pruned": 2.9}}, "gmacs is"),
        ("build", {"bytes": {"floor": 3}}, "says nothing of pruned"),
        ("build", {"kernels": "many"}, "kernels is"),
        ("parity", {"load_seconds": None}, "load_seconds is null, but must be a number"),
        ("torch", {"distributions": {"plain": SPREAD.to_json()}}, "says nothing of cuda_graph"),
    ],
)
def test_what_is_missing_or_wrong_is_named(kind: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        result_of(AT.but(kind), FOUND[kind].to_json() | change)


def test_a_latency_that_no_clock_measures_is_no_result() -> None:
    timed = FOUND["time"].to_json()
    timed["distributions"]["pruned"]["median"] = 0.0
    with pytest.raises(InputError, match="no clock measures that"):
        result_of(AT, timed)
    assert isinstance(FOUND["time"], Bench)
