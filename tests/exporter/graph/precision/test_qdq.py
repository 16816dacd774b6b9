"""int8 as Q/DQ pairs: which products, numbers against a fake quantization by hand, and what targets want."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.io import Ends, rewrite_ends
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.precision.qdq import quantizable, restored, with_dynamic, with_qdq
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once, with_outputs
from vitrim.exporter.runtime.rungs import cosine
from vitrim.exporter.runtime.runners import OrtRunner

METHODS = ["zero_tprune", "ppt", "tome", "frugal", "ats"]
PAIR = ("QuantizeLinear", "DequantizeLinear")
BLOCK = [(48, 144), (48, 48), (48, 192), (192, 48)]
APART = [(48, 96), (48, 48), *BLOCK[1:]]  # keys and values, and queries of fewer tokens


def quantized(model: onnx.ModelProto, images: np.ndarray, scheme: Any = "onnxruntime", **options: Any) -> Any:
    names = quantizable(model)
    ranges = quantization_ranges(model, [images], "minmax", symmetric=scheme == "tensorrt")
    return with_qdq(model, ranges, options.get("nodes", names), scheme), ranges, names


def weight_of(model: onnx.ModelProto, product: str) -> np.ndarray:
    name = next(node.input[1] for node in model.graph.node if node.name == product)
    return np.asarray(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)))


@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5", "trt-11"])
@pytest.mark.parametrize("method", METHODS)
def test_products_of_a_block(method: str, target: str, graphs: Any) -> None:
    model = graphs(method, target)
    shapes = [weight_of(model, name).shape for name in quantizable(model)]
    assert shapes == (APART if method == "ats" else BLOCK) * 2  # ats chooses before its tokens ask


# by family: weights of both blocks, and of what comes behind them
BLOCKS = {
    "qk_norm": BLOCK + APART,  # whose classifier reads the class token only
    "bias": BLOCK * 2,
    "rotary": BLOCK * 2,
    "pool": BLOCK * 2 + [(48, 96), (48, 48), (48, 192), (192, 48)],
}


@pytest.mark.parametrize("family", list(BLOCKS))
def test_other_families(family: str, families: Any) -> None:
    model, _ = families(family)
    shapes = [weight_of(model, name).shape for name in quantizable(model)]
    assert shapes == BLOCKS[family]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["swiglu", "separate"])
def test_gated_mlps_and_separate_projections(family: str, families: Any) -> None:
    model, _ = families(family)
    shapes = [weight_of(model, name).shape for name in quantizable(model)]
    assert len(shapes) == 2 * {"swiglu": 4, "separate": 7}[family]
    assert sum(shape == (48, 48) for shape in shapes) == 2 * {"swiglu": 1, "separate": 4}[family]


def test_neither_pixels_nor_classifier(families: Any) -> None:
    """Behind uint8 pixels the patch embedding is a product, and a classifier may be one, too."""
    model, preprocess = families("qk_norm")
    pixels, _ = rewrite_ends(model, Ends(preprocess, pixels=True, top_k=2))
    assert quantizable(pixels) == quantizable(model)
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    values = weight_of(model, head.name)
    head.op_type = "MatMul"
    del head.attribute[:], head.input[2:]
    weight = next(t for t in model.graph.initializer if t.name == head.input[1])
    weight.CopyFrom(numpy_helper.from_array(values.T.copy(), weight.name))
    assert quantizable(model) == quantizable(pixels)


@pytest.mark.parametrize("scheme", ["onnxruntime", "tensorrt"])
def test_one_layer_is_what_numpy_says(scheme: Any, graphs: Any, noise: Any) -> None:
    model, images = graphs("zero_tprune", "trt-11"), noise(1)
    product = quantizable(model)[2]
    node = next(each for each in model.graph.node if each.name == product)
    result, ranges, _ = quantized(model, images, scheme, nodes=[product])
    low, high = (float(np.ravel(value)[0]) for value in ranges.data[node.input[0]].range_value)
    weight = weight_of(model, product)
    scales = np.abs(weight).max(axis=0) / 127
    rounded = np.clip(np.round(weight / scales), -127, 127) * scales
    x = run_once(with_outputs(model, [node.input[0]]), {"image": images})[node.input[0]]
    if scheme == "tensorrt":
        scale, zero, bounds = max(-low, high) / 127, 0, (-128, 127)
    else:
        scale = (max(high, 0) - min(low, 0)) / 255
        zero, bounds = np.round(-min(low, 0) / scale), (0, 255)
    faked = (np.clip(np.round(x / scale) + zero, *bounds) - zero) * scale
    found = run_once(with_outputs(result, [node.output[0]]), {"image": images})[node.output[0]]
    step = scale * np.abs(rounded).max()  # a value between two steps may go either way
    np.testing.assert_allclose(found, faked @ rounded, atol=2 * step)
    assert np.abs(found - faked @ rounded).mean() < 0.02 * step
    assert np.abs(found - x @ weight).mean() > 0.1 * step


@pytest.mark.parametrize("target", ["trt-8.5", "trt-10.3", "trt-11"])
@pytest.mark.parametrize("method", ["zero_tprune", "ats", "ppt"])
def test_tensorrt_s_scheme(method: str, target: str, graphs: Any, noise: Any) -> None:
    model = graphs(method, target)
    result, _, names = quantized(model, noise(2), "tensorrt")
    onnx.checker.check_model(result, full_check=True)
    assert lint(result, get_target(target)) == []
    assert result.opset_import[0].version == model.opset_import[0].version
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    makers = {name: node for node in result.graph.node for name in node.output}
    products = [node for node in result.graph.node if node.op_type == "MatMul"]
    for node in products:
        above = [makers[name].op_type if name in makers else "weight" for name in node.input]
        assert ("DequantizeLinear" in above) == (node.name in names), node.name
        if node.name not in names:
            continue
        assert above == ["DequantizeLinear"] * 2
        activation, weight = (makers[name] for name in node.input)
        assert weights[activation.input[1]].shape == ()
        assert weights[weight.input[1]].shape == weights[makers[weight.input[0]].input[0]].shape[1:]
        assert next(a.i for a in weight.attribute if a.name == "axis") in (1, -1)
        for pair in (activation, weight):
            zero = weights[pair.input[2]]
            assert (zero.dtype, zero.any()) == (np.int8, False)
    old, new = (OrtRunner(m.SerializeToString(), threads=1)(noise(1))["logits"] for m in (model, result))
    assert cosine(old, new).min() > 0.9


def test_the_query_that_scores_keeps_its_weight(graphs: Any, noise: Any) -> None:
    """It shares that weight with the queries of the tokens that stay, which are quantized."""
    model, images = graphs("ats"), noise(1)
    names = quantizable(model)
    given = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    scoring = [name for name, weight in given.items() if name not in names and weight in {given[n] for n in names}]
    assert len(scoring) == 2
    for result in (quantized(model, images)[0], with_dynamic(model, names)):
        assert not {weight_of(result, name).tobytes() for name in scoring} ^ {
            weight_of(model, name).tobytes() for name in scoring
        }


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["onnxruntime", "tensorrt"])
def test_restored_products_are_float_again(scheme: Any, graphs: Any, families: Any, noise: Any) -> None:
    for model, images in ((graphs("tome", "trt-11"), noise(2)), (families("separate")[0], noise(2, 56))):
        result, _, names = quantized(model, images, scheme)
        whole = restored(result, model, names)
        onnx.checker.check_model(whole, full_check=True)
        assert not any(node.op_type in PAIR for node in whole.graph.node)
        old, new = (run_once(m, {"image": images[:1]}) for m in (model, whole))
        np.testing.assert_allclose(new["logits"], old["logits"], rtol=0, atol=1e-6)
        some = restored(result, model, names[:3])
        left = {n.name for n in gs.import_onnx(some).nodes if n.op == "MatMul" and n.i(0).op == PAIR[1]}
        assert left == set(names[3:])
        assert np.abs(run_once(some, {"image": images[:1]})["logits"] - old["logits"]).max() > 1e-6


@pytest.mark.parametrize("scheme", ["onnxruntime", "tensorrt"])
def test_rows_that_are_cut_out_have_a_pair_of_their_own_behind_the_cut(scheme: Any) -> None:
    """Queries of fewer tokens: once the cut read what was rounded for all rows, and stayed so in any form."""
    draw = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Relu", ["image"], ["r"], "relu"),
        onnx.helper.make_node("MatMul", ["r", "w"], ["kv"], "all_rows"),
        onnx.helper.make_node("Slice", ["r", "zero", "one", "one"], ["row"], "cut"),
        onnx.helper.make_node("MatMul", ["row", "w"], ["q"], "first_row"),
        onnx.helper.make_node("Add", ["kv", "q"], ["a"], "add"),
        onnx.helper.make_node("Add", ["a", "r"], ["logits"], "residual"),
    ]
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, kind, [1, 4, 8]) for name in ("image", "logits")]
    held = {"w": draw.standard_normal((8, 8)).astype(np.float32), "zero": np.array([0]), "one": np.array([1])}
    weights = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = with_shapes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9))
    image = draw.standard_normal((1, 4, 8)).astype(np.float32) * np.array([1, 1, 1, 100], np.float32)[:, None]
    names = ["all_rows", "first_row"]
    result, _, _ = quantized(model, image, scheme, nodes=names)
    readers = {node.name: [i.inputs[0].op for i in node.inputs if i.inputs] for node in gs.import_onnx(result).nodes}
    assert [readers[name][0] for name in (*names, "cut")] == [PAIR[1], PAIR[1], "Relu"]
    assert readers["residual"] == ["Add", "Relu"]
    whole = restored(result, model, names)
    assert not any(node.op_type in PAIR for node in whole.graph.node)
    wanted, found = (run_once(each, {"image": image})["logits"] for each in (model, whole))
    np.testing.assert_array_equal(found, wanted)


def test_nothing_to_quantize(graphs: Any, noise: Any) -> None:
    model = graphs("tome")
    ranges = quantization_ranges(model, [noise(1)], "minmax")
    for same in (with_qdq(model, ranges, [], "tensorrt"), with_dynamic(model, [])):
        assert same == model
        assert same is not model


def test_scales_when_they_are_there(graphs: Any, noise: Any) -> None:
    model, images = graphs("ppt", "ort-cpu"), noise(1)
    model.metadata_props.add(key="vitrim.budget", value="{}")
    before = model.SerializeToString()
    result = with_dynamic(model, quantizable(model))
    assert model.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    found = [node.op_type for node in result.graph.node]
    assert (found.count("MatMulInteger"), found.count("DynamicQuantizeLinear")) == (8, 8)
    assert [f for f in lint(result, get_target("ort-cpu")) if f.severity == "error"] == []
    assert {f.severity for f in lint(result, get_target("trt-11"))} == {"error"}
    assert [(p.key, p.value) for p in result.metadata_props] == [("vitrim.budget", "{}")]
    old, new = (OrtRunner(m.SerializeToString(), threads=1)(images)["logits"] for m in (model, result))
    assert 0.9 < cosine(old, new).min() < 1


def test_metadata_and_inputs_stay(graphs: Any, noise: Any) -> None:
    model = graphs("tome", "trt-11")
    model.metadata_props.add(key="vitrim.budget", value="{}")
    before = model.SerializeToString()
    result, _, _ = quantized(model, noise(1), "tensorrt")
    assert model.SerializeToString() == before
    assert [(p.key, p.value) for p in result.metadata_props] == [("vitrim.budget", "{}")]
    assert result.producer_name == model.producer_name
    assert [o.name for o in result.graph.output] == [o.name for o in model.graph.output]
