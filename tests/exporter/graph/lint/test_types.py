"""Lint of element types and quantization: what is refused, what is silently wrong, and what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.lint.check import lint

F, H, B, I8, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.INT64
TENSORRT = [name for name, target in TARGETS.items() if target.runtime == "tensorrt"]
node = helper.make_node


def model_of(
    nodes: list[onnx.NodeProto], kind: int, shapes: tuple[list[int], list[int]], opset: int, **weights: Any
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, kind, shape) for name, shape in zip("xy", shapes, strict=True)]
    held = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def found(model: onnx.ModelProto, target: str) -> set[tuple[str, str, str]]:
    return {(f.severity, f.node, f.what) for f in lint(model, get_target(target))}


def relu(kind: int, opset: int = 17) -> onnx.ModelProto:
    return model_of([node("Relu", ["x"], ["y"], name="act")], kind, ([1, 4], [1, 4]), opset)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_bfloat16_and_float16_by_target(name: str) -> None:
    brain, half = found(relu(B), name), found(relu(H), name)
    if "bf16" in get_target(name).precisions:
        assert brain == set()
    else:
        assert ("error", "act", f"{name} has no bfloat16") in brain
        assert ("error", "x", f"{name} has no bfloat16") in brain
    if name == "ort-cpu":
        what = "ort-cpu computes float16 through casts to float32, so it is slower for it"
        assert half == {("warning", "act", what), ("warning", "x", what)}
    else:
        assert half == set()


def test_types_that_only_onnxruntime_has() -> None:
    model = model_of([node("Abs", ["x"], ["y"], name="act")], TensorProto.INT16, ([4], [4]), 17)
    assert ("error", "act", "trt-11 has no int16") in found(model, "trt-11")
    assert found(model, "ort-cpu") == set()


def pair(**changes: Any) -> onnx.ModelProto:
    """x through a pair, times a weight through its own, a scale per output channel."""
    given: dict[str, Any] = {
        "scale": np.float32(0.02),
        "zero": np.int8(0),
        "w": np.ones((8, 6), np.float32),
        "scales": np.full(6, 0.02, np.float32),
        "zeros": np.zeros(6, np.int8),
        "axis": 1,
        "opset": 17,
    } | changes
    axis, opset = given.pop("axis"), given.pop("opset")
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(given["scale"]).dtype)
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantize"),
        node("QuantizeLinear", ["w", "scales", "zeros"], ["wq"], name="weight", axis=axis),
        node("DequantizeLinear", ["wq", "scales", "zeros"], ["wd"], name="back", axis=axis),
        node("MatMul", ["d", "wd"], ["y"], name="product"),
    ]
    return model_of(nodes, kind, ([1, 5, 8], [1, 5, 6]), opset, **given)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_symmetric_int8_pair_is_clean_everywhere(name: str) -> None:
    assert found(pair(), name) == set()


@pytest.mark.parametrize("name", TENSORRT)
@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"zero": np.int8(3)}, "quantize", "its zero point is not 0; TensorRT quantizes symmetrically only"),
        ({"zero": np.uint8(0)}, "quantize", "uint8: TensorRT quantizes to int8 only"),
        (
            {"scale": np.full(8, 0.02, np.float32), "zero": np.zeros(8, np.int8)},
            "quantize",
            "a scale per channel for an activation; TensorRT takes them for weights only",
        ),
        (
            {"scales": np.full(8, 0.02, np.float32), "zeros": np.zeros(8, np.int8), "axis": 0},
            "weight",
            "its scales run along axis 0 of MatMul's weight, whose outputs are axis 1",
        ),
    ],
)
def test_what_tensorrt_does_not_quantize(name: str, changes: dict, where: str, what: str) -> None:
    assert ("error", where, what) in found(pair(**changes), name)
    assert found(pair(**changes), "ort-cpu") == set()


def test_broken_scales_are_wrong_everywhere() -> None:
    for name in TARGETS:
        for scale in (0.0, -1.0, np.inf, np.nan):
            whats = found(pair(scale=np.float32(scale)), name)
            assert ("error", "quantize", "a scale is zero, negative or not finite") in whats


def test_half_scales_need_opset_19() -> None:
    half = {"scale": np.float16(0.02), "w": np.ones((8, 6), np.float16), "scales": np.full(6, 0.02, np.float16)}
    old = found(pair(**half), "trt-8.6")
    assert ("error", "quantize", "it takes no float16 before opset 19, and this graph declares 17") in old
    assert ("error", "dequantize", "it takes no float16 before opset 19, and this graph declares 17") in old
    assert found(pair(**half, opset=19), "trt-10.3") == set()


def test_quantized_biases_and_weights_without_a_pair() -> None:
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["wd"], name="weight"),
        node("DequantizeLinear", ["b", "s"], ["bd"], name="bias"),
        node("Gemm", ["x", "wd", "bd"], ["y"]),
    ]
    weights = {"w": np.ones((8, 6), np.int8), "b": np.ones(6, np.int32), "s": np.float32(0.1)}
    model = model_of(nodes, F, ([5, 8], [5, 6]), 17, **weights)
    old, new = found(model, "trt-8.6"), found(model, "trt-10.3")
    assert ("error", "bias", "int32: TensorRT quantizes to int8 only") in old & new
    what = "int8 weights; TensorRT 8 wants float weights, a QuantizeLinear and this node"
    assert ("warning", "weight", what) in old - new
    assert found(model, "ort-cpu") == set()


def test_onnxruntime_s_own_quantization_runs_there_only() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"),
        node("MatMulInteger", ["q", "w", "z"], ["i"], name="product"),
        node("Cast", ["i"], ["f"], to=F),
        node("Mul", ["f", "s"], ["y"]),
    ]
    model = model_of(nodes, F, ([5, 8], [5, 6]), 17, w=np.ones((8, 6), np.int8))
    assert found(model, "ort-cpu") == set()
    assert {severity for severity, node, _ in found(model, "ort-cuda") if node == "dynamic"} == {"warning"}
    for name in TENSORRT:
        whats = found(model, name)
        assert ("error", "dynamic", f"{name} has no DynamicQuantizeLinear") in whats
        assert ("error", "product", f"{name} has no MatMulInteger") in whats


@pytest.mark.parametrize("name", TENSORRT)
def test_half_norms_are_warned_of(name: str) -> None:
    nodes = [node("LayerNormalization", ["x", "w"], ["y"], name="norm")]
    model = model_of(nodes, H, ([1, 3, 8], [1, 3, 8]), 17, w=np.ones(8, np.float16))
    warnings = {where for severity, where, what in found(model, name) if severity == "warning" and "overflow" in what}
    assert warnings == {"norm"}
    nodes = [node("Mul", ["x", "x"], ["s"], name="square"), node("ReduceMean", ["s"], ["y"], axes=[-1])]
    written = found(model_of(nodes, H, ([1, 3, 8], [1, 3, 1]), 17), name)
    assert written == {("warning", "square", "float16 squares are summed, which overflows above 65504")}
    single = [node("LayerNormalization", ["x", "w"], ["y"], name="norm")]
    clean = found(model_of(single, F, ([1, 3, 8], [1, 3, 8]), 17, w=np.ones(8, np.float32)), name)
    assert not [entry for entry in clean if entry[0] == "warning"]


@pytest.mark.parametrize("name", ["trt-8.5", "trt-8.6", "trt-10.3"])
def test_large_integers_are_clamped_silently_by_tensorrt_8(name: str) -> None:
    nodes = [
        node("Slice", ["x", "zero", "end", "one"], ["a"]),  # `to the very end` may be clamped
        node("Cast", ["big"], ["f"], to=F),
        node("Mul", ["a", "f"], ["y"]),
    ]
    last = np.iinfo(np.int64).max
    weights = {"zero": [0], "end": [last], "one": [1], "big": [[2**40, 1]]}
    model = model_of(nodes, F, ([1, 2], [1, 2]), 17, **{key: np.array(value) for key, value in weights.items()})
    whats = found(model, name)
    wrong = ("error", "big", f"silently wrong: it holds {2**40}, which {name} clamps to int32")
    assert (wrong in whats) == name.startswith("trt-8")
    assert not [where for _, where, _ in whats if where == "end"]


def test_integer_products_are_not_tensorrt_s() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product")]
    model = model_of(nodes, TensorProto.INT32, ([2, 3], [2, 4]), 17, w=np.ones((3, 4), np.int32))
    assert found(model, "trt-10.3") == {("error", "product", "TensorRT multiplies matrices of floats only")}
    assert found(model, "ort-cpu") == set()


def test_an_operator_may_be_there_and_not_for_every_type() -> None:
    def act(op: str, kind: int) -> onnx.ModelProto:
        return model_of([node(op, ["x"], ["y"], name="act")], kind, ([1, 4], [1, 4]), 22)

    what = "trt-rtx has HardSwish, but not of bfloat16"
    assert ("error", "act", what) in found(act("HardSwish", B), "trt-rtx")
    assert found(act("HardSwish", H), "trt-rtx") == set()
    assert found(act("HardSwish", B), "trt-10.13") == set()  # nobody asked it
    assert ("error", "act", "trt-rtx has Relu, but not of int32") in found(act("Relu", TensorProto.INT32), "trt-rtx")


@pytest.mark.parametrize("name", TENSORRT)
def test_tensorrt_takes_uint8_in_and_out_and_computes_nothing_in_it(name: str) -> None:
    kind = TensorProto.UINT8
    product = model_of([node("Mul", ["x", "x"], ["y"], name="mul")], kind, ([4], [4]), 17)
    what = "TensorRT computes nothing in uint8, which only inputs and outputs of a graph may be"
    assert ("error", "mul", what) in found(product, name)
    inside = [node("Cast", ["x"], ["a"], name="to", to=kind), node("Cast", ["a"], ["y"], name="back", to=F)]
    what = "TensorRT keeps nothing in uint8 within a graph, as a would be"
    assert found(model_of(inside, F, ([4], [4]), 17), name) == {("error", "to", what)}
    around = [node("Cast", ["x"], ["a"], to=F), node("Neg", ["a"], ["b"]), node("Cast", ["b"], ["y"], to=kind)]
    assert found(model_of(around, kind, ([4], [4]), 17), name) == set()
    assert found(product, "ort-cpu") == set()


def test_tensorrt_for_rtx_takes_scales_that_are_computed() -> None:
    nodes = [
        node("ReduceMax", ["x"], ["s"], keepdims=0),
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], name="d"),
    ]
    model = model_of(nodes, F, ([4], [4]), 17, z=np.int8(0))
    assert found(model, "trt-rtx") == set()
    assert ("error", "q", "its scale is computed; TensorRT wants a constant") in found(model, "trt-11")


def test_what_is_for_quantized_values_only_is_not_cast() -> None:
    model = model_of([node("Cast", ["x"], ["y"], name="to", to=TensorProto.INT4)], F, ([4], [4]), 21)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT4
    assert found(model, "trt-11") == {("error", "to", "TensorRT casts nothing to or from int4")}
    assert found(model, "ort-cpu") == set()
