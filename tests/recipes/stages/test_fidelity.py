"""What pruning costs in answers, counted image by image and streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import chooser

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.stages.fidelity import dense_tokens, measure_fidelity


def weights_of(model: onnx.ModelProto) -> np.ndarray:
    (found,) = [numpy_helper.to_array(entry) for entry in model.graph.initializer if entry.name == "w"]
    return found


def with_weights(model: onnx.ModelProto, weights: np.ndarray) -> onnx.ModelProto:
    for entry in model.graph.initializer:
        if entry.name == "w":
            entry.CopyFrom(numpy_helper.from_array(weights, "w"))
    return model


def kept_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The two least values stay instead of the two greatest."""
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("largest", 0))
    return model


@pytest.fixture
def graphs(tmp_path: Path) -> dict[str, Path]:
    """`dense`, `other` with disturbed weights, `least` that keeps other tokens."""
    noise = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    made = {
        "dense": chooser(),
        "other": with_weights(chooser(), weights_of(chooser()) + 0.7 * noise),
        "least": kept_last(chooser()),
    }
    for name, model in made.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    return {name: tmp_path / f"{name}.onnx" for name in made}


def images_of(count: int, labelled: bool = True) -> ArrayImages:
    draw = np.random.default_rng(0)
    images = draw.standard_normal((count, 8)).astype(np.float32)
    return ArrayImages(images, draw.integers(0, 5, count) if labelled else None, None, "noise")  # type: ignore[arg-type]


def logits_of(path: Path, source: ArrayImages) -> np.ndarray:
    return source.pixels @ weights_of(onnx.load(path))


def measure(graphs: dict[str, Path], pruned: str, source: ArrayImages, float32: str | None = None) -> Any:
    heard: list[tuple[int, int]] = []
    preprocess: Any = None
    wider = None if float32 is None else graphs[float32]
    heard_by = lambda *seen: heard.append(seen)  # noqa: E731
    target = get_target("ort-cpu")
    result = measure_fidelity(graphs["dense"], graphs[pruned], source, target, 1, heard_by, preprocess, wider)
    assert heard == [(8, 21), (16, 21), (21, 21)]
    return result


def test_answers_are_those_of_one_whole_comparison(graphs: dict[str, Path]) -> None:
    source = images_of(21)
    dense, other = (logits_of(graphs[name], source) for name in ("dense", "other"))
    found = measure(graphs, "other", source)
    assert found.images == 21
    assert found.agreement == (dense.argmax(1) == other.argmax(1)).mean()
    assert 0.2 < found.agreement < 1
    assert found.accuracy_dense == (dense.argmax(1) == source.labels).mean()
    assert found.accuracy_pruned == (other.argmax(1) == source.labels).mean()
    logs = [x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (dense.astype(float), other.astype(float))]
    assert found.kl == pytest.approx((np.exp(logs[0]) * (logs[0] - logs[1])).sum(1).mean(), rel=1e-5)
    assert found.precision is None


def test_without_labels_there_is_no_accuracy(graphs: dict[str, Path]) -> None:
    found = measure(graphs, "other", images_of(21, labelled=False))
    assert (found.accuracy_dense, found.accuracy_pruned, found.lost) == (None, None, None)


def test_a_precision_is_held_against_float32_besides(graphs: dict[str, Path]) -> None:
    source = images_of(21)
    found = measure(graphs, "least", source, float32="other")
    assert found.agreement == 1.0  # the weights of the dense one
    wanted = fidelity(logits_of(graphs["other"], source), logits_of(graphs["least"], source), source.labels)
    assert found.precision.agreement == wanted.agreement
    assert found.precision.accuracy_float32 == wanted.accuracy_dense
    assert found.precision.tokens_changed == {"kept_1": 1.0}
    same = measure(graphs, "dense", source, float32="other")
    assert same.precision.tokens_changed == {"kept_1": 0.0}


@pytest.mark.slow
def test_the_stage_measures_the_bundle_s_graphs_on_the_evaluation_images(made: tuple[Path, Any], walked: Any) -> None:
    found = json.loads((walked.folders["fidelity"] / "fidelity.json").read_text())
    images = np.stack([walked.sources.evaluation.read(index) for index in range(12)])
    dense, pruned = (
        run_all(OrtRunner(str(made[0] / name)), images, 1)["logits"] for name in ("dense.onnx", "model.onnx")
    )
    assert found["agreement"] == (dense.argmax(1) == pruned.argmax(1)).mean()
    assert found["accuracy_dense"] == (dense.argmax(1) == walked.sources.evaluation.labels).mean()
    assert (found["images"], found["on_calibration_images"]) == (12, False)


def test_tokens_that_are_left_are_held_against_the_dense_ones_of_their_ids() -> None:
    dense = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    assert dense_tokens(dense, {"tokens": dense * 2}) is dense
    kept = {"kept_2": np.array([[0, 1, 2], [0, 1, 3]]), "kept_10": np.array([[0, 2], [3, 7]])}
    found = dense_tokens(dense, {"tokens": np.zeros((2, 2, 3), np.float32), **kept})
    np.testing.assert_array_equal(found, [dense[0, [0, 2]], [dense[1, 3], np.zeros(3)]])  # 7 was fused
