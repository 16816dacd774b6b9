"""Shapes that are not static: what follows from the shapes of inputs, what depends on data, and what is said of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.lint.check import lint, require_fit
from vitrim.exporter.graph.lint.static import one_finding, shape_values, split

F, I64 = TensorProto.FLOAT, TensorProto.INT64
make = helper.make_node


def model_of(nodes: list[Any], x: list[Any], y: list[Any], opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    constants = [numpy_helper.from_array(each, name) for name, each in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", F, x)], [value("y", F, y)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expander(**more: Any) -> onnx.ModelProto:
    """As PyTorch writes a class token in a dynamic batch: Shape, a Where on it, Expand, Concat, Reshape."""
    nodes = [
        make("Shape", ["x"], ["s"]),
        make("Gather", ["s", "zero"], ["n"], axis=0),
        make("Concat", ["n", "ones"], ["wanted"], axis=0),
        make("ConstantOfShape", ["three"], ["filled"], value=numpy_helper.from_array(np.array([1]))),
        make("Equal", ["wanted", "filled"], ["same"]),
        make("Where", ["same", "filled", "wanted"], ["target"]),
        make("Expand", ["token", "target"], ["tokens"], name="expand"),
        make("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    weights = {"zero": np.array([0]), "ones": np.array([1, 4]), "three": np.array([3])}
    return model_of(nodes, ["batch", 5, 4], ["batch", 6, 4], token=np.ones((1, 1, 4), np.float32), **weights, **more)


def real(model: onnx.ModelProto, target: str) -> list[str]:
    return [finding.what for finding in split(lint(model, get_target(target)))[0]]


@pytest.mark.parametrize("target", TARGETS)
def test_what_follows_from_the_batch_is_one_finding_and_no_refusal(target: str) -> None:
    found = lint(expander(), get_target(target))
    refused, wishes = split(found)
    assert refused == []
    assert len(wishes) == 5
    one = one_finding(expander(), wishes)
    assert one is not None
    assert (one.node, one.severity) == ("x", "warning")
    assert one.what.startswith("the input x [batch, 5, 4], and ")
    assert "--minShapes=x:1x5x4 --optShapes=x:1x5x4 --maxShapes=x:8x5x4" in one.remedy
    assert one.remedy.endswith("--input_name x --input_shape 1,5,4 IN.onnx OUT.onnx")
    with pytest.raises(UnsupportedError, match=f"the graph is not fit for {target}: error: .* not static"):
        require_fit(expander(), get_target(target), "the graph")


def test_real_findings_show_beside_it() -> None:
    model = expander()
    model.graph.node.append(make("Gelu", ["x"], ["z"], name="act"))
    model.opset_import[0].version = 20
    assert real(model, "trt-8.6") == ["opset 20 is above trt-8.6's 17", "trt-8.6 has no Gelu"]
    assert real(model, "trt-10.3") == []


@pytest.mark.parametrize("target", ["ort-cpu", "trt-10.3"])
def test_sizes_that_depend_on_data_stay_what_they_are(target: str) -> None:
    nodes = [make("NonZero", ["x"], ["i"]), make("Shape", ["i"], ["s"]), make("Expand", ["x", "s"], ["y"])]
    assert real(model_of(nodes, ["n", 1], ["a", "b"]), target) == ["its size depends on data"]
    nodes = [make("Cast", ["x"], ["s"], to=I64), make("ConstantOfShape", ["s"], ["y"])]
    assert real(model_of(nodes, [2], ["a", "b"]), target) == ["its shape is computed (s)"]
    branches = [
        helper.make_graph([make("Identity", ["x"], ["o"])], "b", [], [helper.make_tensor_value_info("o", F, [2])])
    ]
    nodes = [make("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[0])]
    assert real(model_of(nodes, [2], [2], c=np.array(True)), target) == ["the graph is not straight-line"]


def test_a_computed_range_and_k_are_as_static_as_what_they_come_from() -> None:
    nodes = [make("Size", ["x"], ["n"]), make("Range", ["zero", "n", "one"], ["r"]), make("Cast", ["r"], ["y"], to=F)]
    weights = {"zero": np.array(0), "one": np.array(1)}
    assert real(model_of(nodes, ["n", 4], ["m"], **weights), "trt-11") == []
    nodes = [make("ReduceMax", ["x"], ["m"], keepdims=0), make("Cast", ["m"], ["n"], to=I64), *nodes[1:]]
    assert real(model_of(nodes, ["n", 4], ["m"], **weights), "trt-11") == ["its size is computed"]
    nodes = [make("Shape", ["x"], ["k"]), make("TopK", ["x", "k"], ["y", "i"])]
    assert real(model_of(nodes, ["n"], ["n"]), "ort-cpu") == []
    assert real(model_of(nodes, ["n"], ["n"]), "trt-8.5") == ["K is not an initializer"]


def test_values_are_followed_through_constants_and_not_through_data() -> None:
    found = shape_values(expander(), {"zero", "ones", "three", "token"})
    assert {"s", "n", "wanted", "filled", "same", "target", "tokens"} <= found
    assert found.isdisjoint({"x", "y"})
    drawn = model_of([make("RandomNormal", [], ["r"], shape=[2])], [2], [2])
    assert shape_values(drawn, ()) == set()


def test_shapes_of_static_inputs_are_said_as_they_are() -> None:
    nodes = [make("Shape", ["x"], ["s"], name="size"), make("Reshape", ["x", "s"], ["y"], name="view")]
    model = model_of(nodes, [2, 3], [2, 3])
    refused, wishes = split(lint(model, get_target("trt-11")))
    one = one_finding(model, wishes)
    assert refused == []
    assert one is not None
    assert one.what == "Shape size: a static graph computes no shapes, and 1 more like it"
    assert one.remedy.startswith("runtimes take that; for vitrim, trace with fixed shapes")
    assert one_finding(model, []) is None


def test_sizes_without_a_name_and_inputs_without_a_shape_are_shown() -> None:
    model = model_of([make("Relu", ["x"], ["y"])], [None, 3, "height"], [None, 3, "height"])
    one = one_finding(model, lint(model, get_target("trt-11")))
    assert one is not None
    assert one.what.startswith("the input x [?, 3, height]")
    assert "--input_shape 1,3,HEIGHT" in one.remedy
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.input[0].type.tensor_type.ClearField("shape")
    one = one_finding(model, lint(model, get_target("trt-11")))
    assert one is not None
    assert one.what.startswith("the input x of any shape")
    assert "export it with fixed shapes" in one.remedy


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{0: "batch"}, {0: "batch", 2: "height", 3: "width"}])
@pytest.mark.filterwarnings("ignore")
def test_a_vit_of_pytorch_s_exporter_is_taken(axes: dict[int, str]) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5, dynamic_img_size=len(axes) > 1).eval()
    stream = io.BytesIO()
    torch.onnx.export(
        vit, (torch.randn(2, 3, 224, 224),), stream, input_names=["images"], output_names=["logits"],
        dynamic_axes={"images": axes, "logits": {0: "batch"}}, opset_version=17, dynamo=False,
    )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    for target in ("ort-cpu", "ort-cuda", "trt-8.6", "trt-10.3", "trt-11"):
        assert real(model, target) == []
    assert set(real(model, "trt-8.5")) == {"trt-8.5 has no LayerNormalization"}
    assert len(split(lint(model, get_target("trt-11")))[1]) > 50
