"""Opset lowering: what it writes, and what it refuses by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.lower_opset import lower
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.shapes import with_shapes

node = helper.make_node
X = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes_become_an_attribute(op: str, keepdims: int, make_graph: Any, rewritten: Any) -> None:
    shape = (2, 1) if keepdims else (2,)
    nodes = [node(op, ["x", "axes"], ["y"], keepdims=keepdims)]
    result, _ = rewritten(make_graph(nodes, {"x": X}, {"y": (np.float32, shape)}, axes=np.array([-1])), {"x": X})
    assert result.opset_import[0].version == 17
    assert [list(n.input) for n in result.graph.node] == [["x"]]
    assert len(result.graph.initializer) == 0


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 2, 1)])
def test_split_by_number_gets_the_sizes_of_its_parts(sizes: tuple[int, ...], make_graph: Any, rewritten: Any) -> None:
    x = X[:, : sum(sizes)].copy()
    outputs = {name: (np.float32, (2, size)) for name, size in zip("abc", sizes, strict=True)}
    nodes = [node("Split", ["x"], list("abc"), axis=1, num_outputs=3)]
    result, _ = rewritten(make_graph(nodes, {"x": x}, outputs), {"x": x})
    assert [attribute.name for attribute in result.graph.node[0].attribute] == ["axis"]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("GridSample", ["g", "p"], ["y"], name="sample")], "node sample: GridSample means something else"),
        ([node("Gelu", ["x"], ["y"], name="act")], "node act is a Gelu, which opset 17 does not have"),
        ([node("ReduceMax", ["x", "a"], ["y"], name="max")], "node max: ReduceMax has computed axes"),
        ([node("BitwiseNot", ["b"], ["y"], name="flip")], "node flip is a BitwiseNot, which opset 17"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(nodes: list, words: str, make_graph: Any) -> None:
    inputs = {"x": X, "g": np.zeros((1, 1, 4, 4), np.float32), "p": np.zeros((1, 2, 2, 2), np.float32)}
    inputs |= {"a": np.array([1]), "b": np.zeros(2, np.uint8)}
    model = make_graph(nodes, inputs, {"y": (np.float32, (1,))})
    with pytest.raises(UnsupportedError, match=words):
        lower(model, 17)


def test_older_than_13_is_refused_before_anything(make_graph: Any) -> None:
    model = make_graph([node("Relu", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)}, 12)
    with pytest.raises(UnsupportedError, match="opset 12; passes take 13 and later"):
        rewrite(model, get_target("ort-cpu"))


def test_the_file_version_is_the_oldest_that_the_opset_allows(make_graph: Any, rewritten: Any) -> None:
    for target, opset, version in [("trt-8.5", 17, 8), ("ort-cpu", 20, 9)]:
        model = make_graph([node("Relu", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
        assert model.ir_version == 10
        result, _ = rewritten(model, {"x": X}, target)
        assert (result.opset_import[0].version, result.ir_version) == (opset, version)


def test_nothing_is_raised_without_need(make_graph: Any) -> None:
    model = with_shapes(make_graph([node("Relu", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)}, 15))
    assert lower(model, 17) == 0
    assert model.opset_import[0].version == 15


def test_fused_attention_is_for_targets_that_have_it(make_graph: Any) -> None:
    model = make_graph([node("Relu", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
    for name in ("trt-11", "ort-cuda", "trt-8.5"):
        with pytest.raises(UnsupportedError, match=f"{name} gets no fused Attention"):
            rewrite(model, get_target(name), fused_attention=True)
