"""What activations a graph has: equal to numpy, by pieces or at once, and no NaN among them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.precision.ranges import Extent, batches_of, extents_of, quantization_ranges
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


def test_extents_are_numpy_s() -> None:
    images = draw(7)
    images[2] *= 1e-3
    images[3] = 0
    found = extents_of(small(), [images[:2], images[2:]])  # batches of two: 0 1, 2 3, 4 5, 6 6
    for name, value in (("a", np.tanh(images)), ("y", np.tanh(images) @ WEIGHT)):
        sizes = np.abs(value).max((1, 2))
        batches = [sizes[[0, 1]].max(), sizes[2], sizes[[4, 5]].max(), sizes[6]]
        assert (found[name].least, found[name].largest) == pytest.approx((sizes[2], max(batches)), rel=1e-5)


def test_a_batch_of_zeros_says_nothing_of_the_least() -> None:
    images = draw(4)
    images[:2] = 0
    found = extents_of(small(), [images])
    assert found["a"].least == found["a"].largest == pytest.approx(np.abs(np.tanh(images)).max(), rel=1e-5)
    assert extents_of(small(), [images[:2]]) == {"a": Extent(0, 0), "y": Extent(0, 0)}


def test_extents_are_of_every_float_of_a_model(graphs: Any, noise: Any) -> None:
    model = graphs("ppt")
    found = extents_of(model, [noise(2)])
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    assert set(found) == {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}
    logits = [np.abs(run_once(model, {"image": noise(2)[index : index + 1]})["logits"]).max() for index in range(2)]
    assert (found["logits"].least, found["logits"].largest) == pytest.approx((min(logits), max(logits)), rel=1e-4)


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
    measure: Any = extents_of
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


CHAIN = """
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from vitrim.exporter.graph.precision.ranges import extents_of
from vitrim.exporter.graph.shapes import with_shapes


def peak() -> int:  # not by `resource`: that one begins with what the parent has
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


shape = [1, 1 << 22]
nodes = [helper.make_node("Neg", [f"x{at}" if at else "image"], [f"x{at + 1}"]) for at in range(40)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "x40")]
model = helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:]))
before = peak()
found = extents_of(with_shapes(model), [np.ones(shape, np.float32)])
print(len(found), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_activations_are_given_back_as_they_are_read() -> None:
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, check=True, timeout=120)
    count, megabytes = map(int, done.stdout.split())
    assert count == 40
    assert megabytes < 40 * 16 / 3  # all of them at once are 40 times 16 MiB
