"""Integer products of onnxruntime's CPU provider, held against the pairs that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.precision.integer import to_integer
from vitrim.exporter.graph.precision.qdq import quantizable, restored, with_qdq
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once, with_outputs
from vitrim.exporter.runtime.rungs import cosine
from vitrim.exporter.runtime.runners import OrtRunner

make = helper.make_node
PRODUCT = "MatMulIntegerToFloat"


def small(batch: int = 2, bias: bool = True) -> onnx.ModelProto:
    """image [batch, 3, 8] -> a product, a bias and a residual."""
    draw = np.random.default_rng(0)
    nodes = [make("Relu", ["image"], ["r"], "relu"), make("MatMul", ["r", "w"], ["p"], "product")]
    nodes.append(make("Add", ["b", "p"] if bias else ["p", "image"], ["logits"], "add"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 3, 8]) for name in ("image", "logits")]
    weights = {"w": draw.standard_normal((8, 8))} | ({"b": draw.standard_normal(8)} if bias else {})
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def pairs(model: onnx.ModelProto, images: np.ndarray, nodes: list[str] | None = None) -> onnx.ModelProto:
    ranges = quantization_ranges(model, [images], "minmax")
    return with_qdq(model, ranges, quantizable(model) if nodes is None else nodes, "onnxruntime")


def count(model: onnx.ModelProto) -> dict[str, int]:
    names = [node.op_type for node in model.graph.node]
    return {op: names.count(op) for op in (PRODUCT, "QuantizeLinear", "DequantizeLinear", "Add", "ReduceMax")}


@pytest.mark.parametrize("method", ["zero_tprune", "tome"])
def test_equals_the_pairs(method: str, graphs: Any, noise: Any) -> None:
    model, images = graphs(method), noise(4)
    quantized = pairs(model, images)
    before = quantized.SerializeToString()
    result = to_integer(quantized)
    assert quantized.SerializeToString() == before
    onnx.checker.check_model(result)
    old, new = count(quantized), count(result)
    assert (new[PRODUCT], new["DequantizeLinear"], new["QuantizeLinear"]) == (8, 0, old["QuantizeLinear"])
    assert new["Add"] == old["Add"] - 8  # biases are taken in
    for image in images:
        a, b = (run_once(m, {"image": image[None]}) for m in (quantized, result))
        scale = np.abs(a["logits"]).max()
        np.testing.assert_allclose(b["logits"], a["logits"], rtol=0, atol=1e-4 * scale)
        assert np.array_equal(np.sort(a["kept_1"]), np.sort(b["kept_1"]))


def test_one_product_is_exact_integer_arithmetic() -> None:
    model, images = small(), np.random.default_rng(1).standard_normal((2, 3, 8)).astype(np.float32)
    quantized = pairs(model, images, ["product"])
    held = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    kinds = sorted(str(value.dtype) for value in held.values() if value.ndim == 2)
    assert kinds == ["int8"]
    whole = next(value for value in held.values() if value.ndim == 2).astype(np.int64)
    scales = np.abs(numpy_helper.to_array(model.graph.initializer[0])).max(axis=0) / 127
    x = np.maximum(images, 0)
    step = x.max() / 255
    wanted = (np.round(x / step).astype(np.int64) @ whole) * step * scales + held["b"]
    found = run_once(to_integer(quantized), {"image": images})["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_residual_is_no_bias() -> None:
    images = np.random.default_rng(1).standard_normal((2, 3, 8)).astype(np.float32)
    quantized = pairs(small(bias=False), images, ["product"])
    result = to_integer(quantized)
    assert count(result)["Add"] == 1
    node = next(node for node in result.graph.node if node.op_type == PRODUCT)
    assert (node.domain, len(node.input)) == ("com.microsoft", 5)
    np.testing.assert_allclose(*(run_once(m, {"image": images})["logits"] for m in (quantized, result)), atol=1e-4)


@pytest.mark.slow
def test_a_scale_a_token_does_not_look_at_other_images(graphs: Any, noise: Any) -> None:
    model, images = graphs("tome", batch=2), noise(6)
    quantized = pairs(model, images)
    result = to_integer(quantized, quantizable(model))
    assert count(result)[PRODUCT] == 8
    assert count(result)["ReduceMax"] >= 8
    runner = OrtRunner(result.SerializeToString(), threads=1)
    alone = runner(np.stack([images[0], images[0]]))["logits"]
    np.testing.assert_allclose(alone[0], alone[1], atol=1e-5)
    for other in (images[1], images[2] * 30, images[3] * 0):
        np.testing.assert_allclose(runner(np.stack([images[0], other]))["logits"][0], alone[0], rtol=0, atol=1e-5)
    old = OrtRunner(model.SerializeToString(), threads=1)(images[:2])["logits"]
    assert cosine(old, runner(images[:2])["logits"]).min() > 0.98


def test_rows_of_zeros_and_tiny_rows_are_finite_and_right() -> None:
    model = small()
    images = np.random.default_rng(2).standard_normal((2, 3, 8)).astype(np.float32)
    result = to_integer(pairs(model, images, ["product"]), {"product"})
    given = images.copy()
    given[0, 0], given[1, 1] = 0, np.abs(given[1, 1]) * 1e-8
    quotient = next(node.output[0] for node in result.graph.node if node.op_type == "Div")
    assert np.isfinite(run_once(with_outputs(result, [quotient]), {"image": given})[quotient]).all()
    old, new = (run_once(m, {"image": given})["logits"] for m in (model, result))
    np.testing.assert_allclose(new[0, 0], old[0, 0], atol=1e-9)
    np.testing.assert_allclose(new, old, atol=0.1)
    bias = numpy_helper.to_array(model.graph.initializer[1])
    tiny = old[1, 1].astype(np.float64) - bias
    assert np.abs(new[1, 1] - bias - tiny).max() <= max(1e-7, 0.02 * np.abs(tiny).max())


def test_a_large_token_does_not_spoil_the_others() -> None:
    model = small()
    images = np.random.default_rng(3).standard_normal((8, 3, 8)).astype(np.float32)
    images[:, 0] *= 100
    quantized = pairs(model, images, ["product"])
    errors = []
    for chosen in ((), ("product",)):
        old, new = (run_once(m, {"image": images[:2]})["logits"] for m in (model, to_integer(quantized, chosen)))
        errors.append(np.abs(old - new)[:, 1:].mean())
    assert errors[1] < 0.1 * errors[0]


def test_forms_side_by_side(graphs: Any, noise: Any) -> None:
    model, images = graphs("zero_tprune"), noise(2)
    names, quantized = quantizable(model), pairs(model, images)
    result = to_integer(restored(quantized, model, names[:2]), names[2:4])
    found = count(result)
    assert (found[PRODUCT], found["DequantizeLinear"]) == (6, 0)
    assert found["ReduceMax"] - count(quantized)["ReduceMax"] == 2
    plain = [node.name for node in result.graph.node if node.op_type == "MatMul"]
    assert set(names[:2]) <= set(plain)
    assert not set(names[2:]) & set(plain)
    old, new = (run_once(m, {"image": images[:1]})["logits"] for m in (model, result))
    assert 0.98 < cosine(old, new).min() < 1


@pytest.mark.parametrize("tokens", [False, True])
def test_only_onnxruntime_takes_it(tokens: bool, graphs: Any, noise: Any) -> None:
    model = graphs("zero_tprune")
    result = to_integer(pairs(model, noise(1)), quantizable(model) if tokens else ())
    assert [f for f in lint(result, get_target("ort-cpu")) if f.severity == "error"] == []
    for target in ("trt-8.5", "trt-10.3", "trt-11"):
        errors = [f for f in lint(result, get_target(target)) if f.severity == "error" and f.op == PRODUCT]
        assert len(errors) == 8
    assert [(e.domain, e.version) for e in result.opset_import] == [("", 20), ("com.microsoft", 1)]


def test_a_graph_without_pairs_is_as_it_was(graphs: Any, noise: Any) -> None:
    model = graphs("zero_tprune")
    result = to_integer(model)
    assert count(result)[PRODUCT] == 0
    assert np.array_equal(*(run_once(m, {"image": noise(1)})["logits"] for m in (model, result)))
