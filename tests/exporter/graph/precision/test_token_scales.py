"""A scale per token, as pairs: rounds every row by its own largest value, and no image changes another's answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.precision.integer import to_integer
from vitrim.exporter.graph.precision.qdq import quantizable, with_qdq
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.precision.token_scales import with_token_scales
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.runtime.openvino.runner import OpenVinoRunner

make = helper.make_node


def small(rows: int = 6) -> onnx.ModelProto:
    """image [1, rows, 8] -> a product, behind a Relu that makes it no direct reader of the input."""
    nodes = [make("Relu", ["image"], ["r"], "relu"), make("MatMul", ["r", "w"], ["p"], "product")]
    nodes.append(make("Add", ["p", "image"], ["logits"], "add"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, rows, 8]) for name in ("image", "logits")]
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def pairs(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    ranges = quantization_ranges(model, [images], "minmax")
    return with_qdq(model, ranges, quantizable(model) or ["product"], "onnxruntime")


@pytest.mark.parametrize(("lowest", "steps", "zero"), [({}, 127, 128), ({"product": -0.1}, 239, 16)])
def test_every_row_is_rounded_by_its_own_largest_value(lowest: Any, steps: int, zero: int) -> None:
    image = np.abs(np.random.default_rng(1).standard_normal((1, 6, 8))).astype(np.float32)
    image *= np.array([1e-3, 1, 10, 100, 1e3, 1e4], np.float32)[:, None]
    quantized = pairs(small(), image)
    model = with_token_scales(quantized, {"product"}, lowest)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = next(value for value in held.values() if value.dtype == np.int8 and value.ndim == 2).astype(np.float32)
    columns = next(value for value in held.values() if value.dtype == np.float32 and value.shape == (8,))
    scale = image.max(-1, keepdims=True) / steps
    if lowest:
        scale = np.maximum(scale, 0.1 / 16)
    whole = np.clip(np.round(image / scale) + zero, 0, 255) - zero
    wanted = (whole * scale) @ (weight * columns) + image
    found = run_once(model, {"image": image})["logits"]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-6)
    by_openvino = OpenVinoRunner(model.SerializeToString(), threads=1)(image)["logits"]
    assert np.abs(by_openvino - found).max() < 2e-3 * np.abs(found).max()
    one_for_all = run_once(quantized, {"image": image})["logits"]
    assert (np.abs(one_for_all - wanted)[0, 1:4].max(-1) > 10 * np.abs(found - wanted)[0, 1:4].max(-1)).all()


@pytest.mark.slow
def test_a_graph_of_pairs_says_the_same_as_the_integer_one(graphs: Any, noise: Any) -> None:
    model, images = graphs("tome", "openvino"), noise(4)
    quantized, products = pairs(model, images), quantizable(model)
    before = quantized.SerializeToString()
    some = products[::2]
    as_pairs, integer = with_token_scales(quantized, some), to_integer(quantized, some)
    assert quantized.SerializeToString() == before
    onnx.checker.check_model(as_pairs)
    assert {node.name for node in as_pairs.graph.node} >= {node.name for node in model.graph.node}
    assert sum(node.op_type == "ReduceMax" for node in as_pairs.graph.node) == len(some) + sum(
        node.op_type == "ReduceMax" for node in model.graph.node
    )
    assert [str(f) for f in lint(as_pairs, get_target("openvino")) if f.severity == "error"] == []
    for image in images:
        one, other = (run_once(each, {"image": image[None]})["logits"] for each in (as_pairs, integer))
        np.testing.assert_allclose(one, other, atol=1e-4)
