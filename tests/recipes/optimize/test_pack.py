"""The page of an optimised file, and what is said of speed: its `dense` is the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from foreign_files import cnn

from vitrim.exporter.graph.opened import open_model
from vitrim.exporter.runtime.bench.report import LATER, report
from vitrim.exporter.runtime.parity import Parity, Rung
from vitrim.recipes.optimize.pack import Optimized, page
from vitrim.recipes.optimize.wishes import Wishes


def done(folder: Path, **more: Any) -> Optimized:
    rung = Rung("onnx: rewritten for ort-cpu", 4, smallest_atol=2e-7)
    given: dict[str, Any] = {
        "folder": folder,
        "source": {"name": "m.onnx", "sha256": "0" * 64},
        "input": "pixels",
        "output": "answer",
        "passes": ({"name": "constants folded", "count": 3},),
        "left_out": (),
        "parity": Parity(1e-4, 1e-4, (rung,)),
        "precision": None,
        "bench": None,
        "engine": "skipped by the recipe",
    }
    return Optimized(**{**given, **more})


def test_the_page_says_what_was_done_and_how_near_it_is(tmp_path: Path) -> None:
    opened = open_model(cnn(tmp_path / "m.onnx"))
    text = page(done(tmp_path), Wishes(), opened, False)
    assert text.startswith("# m.onnx, optimised by vitrim for ort-cpu\n")
    assert "- output `logits` [1, 5], the file's `answer`" in text
    assert "- passes: constants folded (3)\n" in text
    assert "by onnxruntime: passed on 4 random images, at an atol of 2e-07\n" in text
    assert f"- speed: {LATER}\n" in text


def test_speed_is_of_the_file() -> None:
    samples = {"dense": np.full(60, 2.0) + np.arange(60) * 1e-4, "pruned": np.full(60, 1.0) + np.arange(60) * 1e-4}
    found = done(Path("out"), bench=report(samples, 1, {}, [60]))
    assert found.verdict.startswith("2.00 times as fast as the file (95 % interval ")
    assert found.to_json()["engine"] == "skipped by the recipe"
