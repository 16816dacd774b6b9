"""The patch embedding as a product: the same tokens, and where it stays a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from vitrim.exporter.core.preprocess import Preprocess
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.io import Ends, rewrite_ends
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.surgery import import_graph

NAME = "patches as rows of a product"
OPENVINO = get_target("openvino")
node = helper.make_node


def embedding(
    make_graph: Any,
    kernel: tuple[int, int] = (4, 4),
    patches: tuple[int, int] = (2, 3),
    batch: int = 1,
    bias: bool = True,
    grid: bool = False,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Six channels of patches as timm embeds them, a row of tokens or a grid of them, doubled; and an image."""
    draw = np.random.default_rng(0)
    image = draw.standard_normal((batch, 3, kernel[0] * patches[0], kernel[1] * patches[1])).astype(np.float32)
    weights = {"w": draw.standard_normal((6, 3, *kernel)).astype(np.float32), "two": np.float32([2])}
    if bias:
        weights["b"] = draw.standard_normal(6).astype(np.float32)
    inputs = ["image", "w", "b"] if bias else ["image", "w"]
    nodes = [node("Conv", inputs, ["c"], name="proj", strides=list(kernel))]
    shape: tuple[int, ...] = (batch, *patches, 6)
    if grid:
        nodes.append(node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]))
    else:
        shape = (batch, patches[0] * patches[1], 6)
        weights["rows"] = np.array([batch, 6, shape[1]])
        nodes += [node("Reshape", ["c", "rows"], ["r"]), node("Transpose", ["r"], ["t"], perm=[0, 2, 1])]
    nodes.append(node("Mul", ["t", "two"], ["logits"]))
    return make_graph(nodes, {"image": image}, {"logits": (np.float32, shape)}, **weights), {"image": image}


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    patches=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.integers(1, 2),
    bias=st.booleans(),
    grid=st.booleans(),
)
def test_the_tokens_are_the_same(
    kernel: tuple[int, int], patches: tuple[int, int], batch: int, bias: bool, grid: bool, make_graph: Any
) -> None:
    model, feeds = embedding(make_graph, kernel, patches, batch, bias, grid)
    result, reports = rewrite(model, OPENVINO, feeds)
    (report,) = (each for each in reports if each.name == NAME)
    assert report.count == 1
    assert report.max_abs is not None
    assert report.max_abs < 1e-5
    assert "Conv" not in operator_table(result)
    assert operator_table(result)["MatMul"] == 1


@pytest.mark.parametrize(
    ("target", "pixels"),
    [
        ("ort-cpu", False),  # its convolution is faster
        ("trt-10", False),
        ("openvino", True),
    ],
)
def test_what_stays(target: str, pixels: bool, make_graph: Any) -> None:
    model, feeds = embedding(make_graph)
    result, reports = rewrite(model, get_target(target), feeds, pixels=pixels)
    assert next(report.count for report in reports if report.name == NAME) == 0
    assert operator_table(result)["Conv"] == 1


def test_patches_that_overlap_stay(make_graph: Any) -> None:
    image = np.zeros((1, 3, 8, 8), np.float32)
    weights = {"w": np.ones((6, 3, 4, 4), np.float32), "rows": np.array([1, 6, 6])}
    nodes = [
        node("Conv", ["image", "w"], ["c"], name="proj", strides=[4, 2]),
        node("Reshape", ["c", "rows"], ["r"]),
        node("Transpose", ["r"], ["logits"], perm=[0, 2, 1]),
    ]
    model = make_graph(nodes, {"image": image}, {"logits": (np.float32, (1, 6, 6))}, **weights)
    result, _ = rewrite(model, OPENVINO, {"image": image})
    assert operator_table(result)["Conv"] == 1


def test_pixels_are_made_a_product_by_their_own_end(make_graph: Any) -> None:
    model, feeds = embedding(make_graph)
    preprocess = Preprocess((3, 8, 12), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    rewritten, _ = rewrite(model, OPENVINO, feeds, pixels=True)
    found, _ = rewrite_ends(rewritten, Ends(preprocess, pixels=True))
    assert "Conv" not in operator_table(found)
    assert found.graph.input[0].type.tensor_type.elem_type == 2  # uint8


def test_the_image_is_cut_in_float32_and_multiplied_in_bfloat16(make_graph: Any) -> None:
    model, feeds = embedding(make_graph)
    graph = import_graph(rewrite(model, OPENVINO, feeds)[0])
    wide = wide_nodes(graph, inner_float32=True)
    ops = {one.op: one.name in wide for one in graph.nodes if one.name.startswith("patches")}
    assert ops == {"Reshape": True, "Transpose": True, "MatMul": False, "Add": False}
