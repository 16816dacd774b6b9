"""What activations a graph has: equal to numpy, by pieces or at once, and no NaN among them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.precision.ranges import batches_of, largest_activations, overflowing, quantization_ranges
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 5)).astype(np.float32)


def small(op: str = "Tanh") -> onnx.ModelProto:
    """[2, 3, 4] through one operator and a product."""
    nodes = [helper.make_node(op, ["x"], ["a"], "first"), helper.make_node("MatMul", ["a", "w"], ["y"], "second")]
    shapes = {"x": [2, 3, 4], "y": [2, 3, 5]}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(WEIGHT, "w")])
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def draw(count: int, spread: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(count).standard_normal((count, 3, 4)) * spread).astype(np.float32)


def plain(ranges: Any) -> dict[str, tuple[float, float]]:
    return {name: (float(np.min(low)), float(np.max(high))) for name, data in ranges.data.items()
            for low, high in [data.range_value]}  # fmt: skip


def test_largest_is_numpy_s() -> None:
    images = draw(7)
    found = largest_activations(small(), [images[:3], images[3:]])
    a = np.tanh(images)
    assert found == pytest.approx({"a": np.abs(a).max(), "y": np.abs(a @ WEIGHT).max()}, rel=1e-5)


def test_largest_sees_every_float_of_a_model(graphs: Any, noise: Any) -> None:
    model = graphs("ppt")
    found = largest_activations(model, [noise(2)])
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    assert set(found) == {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    logits = [np.abs(run_once(model, {"image": noise(2)[index : index + 1]})["logits"]).max() for index in range(2)]
    assert found["logits"] == pytest.approx(max(logits), rel=1e-4)


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
def test_pieces_equal_all_at_once(calibrator: Any) -> None:
    images = draw(20)
    whole = plain(quantization_ranges(small(), [images], calibrator))
    assert whole == plain(quantization_ranges(small(), iter([images[:6], images[6:16], images[16:]]), calibrator))
    assert set(whole) == {"a", "y"}


@pytest.mark.parametrize("symmetric", [False, True])
def test_minmax_is_numpy_s(symmetric: bool) -> None:
    images = draw(9)
    a = np.tanh(images)
    found = plain(quantization_ranges(small(), [images], "minmax", symmetric=symmetric))
    for name, value in (("a", a), ("y", a @ WEIGHT)):
        low, high = value.min(), value.max()
        wanted = (-max(-low, high), max(-low, high)) if symmetric else (low, high)
        assert found[name] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_the_others_lie_within(calibrator: Any) -> None:
    images = draw(64)
    images[0, 0, 0] = 40.0  # one value far from all others
    outer = plain(quantization_ranges(small("Identity"), [images], "minmax"))
    inner = plain(quantization_ranges(small("Identity"), [images], calibrator, percentile=99.0))
    assert outer["a"][1] == 40.0
    for name, (low, high) in outer.items():
        assert low - 1e-6 <= inner[name][0] < inner[name][1] <= high + 1e-6
    if calibrator == "percentile":
        assert inner["a"][1] < 5


@pytest.mark.parametrize("calibrator", [None, "minmax", "percentile", "entropy"])
@pytest.mark.parametrize("bad", [-1.0, 0.0])
def test_one_nan_or_inf_is_refused_by_name(bad: float, calibrator: Any) -> None:
    """onnxruntime's ReduceMax and its calibrators pass over a NaN beside other numbers."""
    images = np.ones((4, 3, 4), np.float32)
    images[3, 1, 2] = bad
    measure: Any = largest_activations
    if calibrator is not None:
        measure = partial(quantization_ranges, calibrator=calibrator)
    with pytest.raises(InputError, match="the activation a holds NaN or Inf on the calibration images"):
        measure(small("Log"), [images])


def test_every_product_of_a_model_has_a_range(graphs: Any, noise: Any, capsys: Any) -> None:
    model = graphs("tome")
    before = model.SerializeToString()
    found = plain(quantization_ranges(model, [noise(3)], "percentile"))
    read = {node.input[0] for node in model.graph.node if node.name in quantizable(model)}
    assert read <= set(found)
    assert all(low < high for name, (low, high) in found.items() if name in read)
    assert model.SerializeToString() == before
    assert capsys.readouterr().out == ""


def test_the_last_batch_is_filled_up() -> None:
    images = np.arange(5, dtype=np.float32).reshape(5, 1)
    batches = batches_of([images[:3], images[3:]], (2, 1))
    assert [batch.ravel().tolist() for batch in batches] == [[0, 1], [2, 2], [3, 4]]


def test_overflowing_names_the_writer_with_its_largest_value() -> None:
    largest, writers = {"a": 5.0, "b": 70.0, "c": 90.0, "d": 99.0}, {"a": "A", "b": "B", "c": "B", "d": "D"}
    assert overflowing(largest, writers, 60, {"D"}) == {"B": 90.0}
    assert overflowing(largest, writers, 99, ()) == {}
