"""Timing in turns: the first form stays unless another is clearly faster; a target that is not here is not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_graphs import doubler

from vitrim.exporter.core.targets import get_target
from vitrim.recipes.stages import trial as trials
from vitrim.recipes.stages.trial import fastest, trial


def model() -> onnx.ModelProto:
    return onnx.load_from_string(doubler())


@pytest.mark.parametrize(("times", "chosen"), [((2.0, 1.9), "b"), ((2.0, 1.97), "a"), ((1.0, 2.0), "a")])
def test_another_form_has_to_be_clearly_faster(times: Any, chosen: str, monkeypatch: Any) -> None:
    samples = {name: np.full(5, each) for name, each in zip("ab", times, strict=True)}
    monkeypatch.setattr(trials, "_samples", lambda runners: {name: samples[name] for name in runners})
    assert fastest({"a": model(), "b": model()}, get_target("ort-cpu"), 1) == (
        chosen,
        dict(zip("ab", times, strict=True)),
    )


def test_candidates_are_really_run() -> None:
    name, medians = fastest({"a": model(), "b": model()}, get_target("ort-cpu"), 1)
    assert name in "ab"
    assert set(medians) == {"a", "b"}
    assert all(0 < value < 1000 for value in medians.values())


def test_a_target_that_is_here_is_timed(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(doubler())
    found = trial(tmp_path / "a.onnx", tmp_path / "a.onnx", get_target("ort-cpu"), 1, "fp16")
    assert set(found) == {"speedup_over_fp32", "interval"}
    assert found["interval"][0] <= found["speedup_over_fp32"] <= found["interval"][1]
    assert 0.2 < found["speedup_over_fp32"] < 5  # a graph against itself


@pytest.mark.parametrize("target", ["trt-11", "ort-trt"])
def test_one_that_is_not_is_none(target: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(doubler())
    found = trial(tmp_path / "a.onnx", tmp_path / "a.onnx", get_target(target), 1, "fp16")
    if target == "ort-trt" and found["speedup_over_fp32"] is not None:
        pytest.skip("this machine has TensorRT")
    assert found["speedup_over_fp32"] is found["interval"] is None
    assert target in found["not_timed"]
