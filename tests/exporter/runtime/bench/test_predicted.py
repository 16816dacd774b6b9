"""A prediction of a table from this device, beside what is timed on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_tables import made_table

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.latency import PlanLatency
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench.predicted import prediction_here, told_by
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.machine.named import machine_of

TARGET = get_target("ort-cpu")


def bench(**environment: Any) -> Bench:
    samples = {"dense": np.full(9, 12.0), "pruned": np.full(9, 9.0)}
    return report(samples, 1, {"runtime": "onnxruntime-cpu", "threads": 1, **environment})


def budget(folder: Path, **of: Any) -> Path:
    told = PlanLatency(8.0, 12.0, 0.5, made_table(**(machine_of(TARGET) | of)).of)
    path = folder / "budget.json"
    path.write_text(json.dumps({"statistics": {"latency": told.to_json()}}))
    return path


def test_a_plan_that_was_solved_for_this_device_is_held_against_what_it_takes(tmp_path: Path) -> None:
    found = prediction_here(told_by(budget(tmp_path)), TARGET, bench())
    assert found is not None
    assert (found.predicted_speedup, found.measured_speedup) == (1.5, pytest.approx(12 / 9))
    assert (found.judged_by, found.measured_ms, found.correction_ms) == ("speedup", 9.0, 0.5)
    assert found.error == pytest.approx(8 / 9 - 1)


def test_of_another_device_nothing_is_said(tmp_path: Path) -> None:
    for of in ({"device": "a Pi"}, {"runtime": "onnxruntime 0.1"}, {"threads": 2}):
        assert prediction_here(told_by(budget(tmp_path, **of)), TARGET, bench()) is None
    assert prediction_here(told_by(budget(tmp_path)), TARGET, replace(bench(), environment={"cpu_only": "why"})) is None
    (tmp_path / "budget.json").write_text("{}")
    assert told_by(tmp_path / "budget.json") is None
    assert prediction_here(None, TARGET, bench()) is None
    (tmp_path / "budget.json").write_text('{"statistics": {"latency": {"predicted_ms": 1}}}')
    with pytest.raises(InputError, match=r"statistics\.latency: dense_ms is missing"):
        told_by(tmp_path / "budget.json")
