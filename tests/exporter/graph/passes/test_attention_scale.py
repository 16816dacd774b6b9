"""One scale for both factors of a product, and keys transposed without a detour."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite

SCALE, TRANSPOSE = "one scale per attention", "keys transposed once"
node = helper.make_node
DRAW = np.random.default_rng(0)
Q, K = (DRAW.standard_normal((1, 2, 5, 4)).astype(np.float32) for _ in range(2))
FEEDS = {"q": Q, "k": K}


def scaled(make_graph: Any, right: Any, shown: bool = False, swapped: bool = False) -> onnx.ModelProto:
    """(q s) @ (k^T t)."""
    nodes = [
        node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        node("Mul", ["s", "q"] if swapped else ["q", "s"], ["qs"]),
        node("Mul", ["kt", "t"], ["ks"]),
        node("MatMul", ["qs", "ks"], ["y"], name="product"),
    ]
    outputs = {"y": (np.float32, (1, 2, 5, 5))}
    if shown:
        nodes.append(node("Neg", ["qs"], ["z"]))
        outputs["z"] = (np.float32, Q.shape)
    return make_graph(nodes, FEEDS, outputs, s=np.float32(0.7), t=right)


@pytest.mark.parametrize("swapped", [False, True])
def test_both_scales_become_one_on_the_left(swapped: bool, make_graph: Any, rewritten: Any) -> None:
    result, counts = rewritten(scaled(make_graph, np.float32(0.3), swapped=swapped), FEEDS)
    assert counts[SCALE] == 1
    assert operator_table(result) == {"Mul": 1, "MatMul": 1, "Transpose": 1}
    held = [onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer]
    assert [float(value) for value in held] == [pytest.approx(0.21)]


def test_a_scale_a_column_stays(make_graph: Any, rewritten: Any) -> None:
    _, counts = rewritten(scaled(make_graph, DRAW.random(5, np.float32)), FEEDS)
    assert SCALE not in counts


def test_a_factor_that_is_read_elsewhere_stays_with_the_reason(make_graph: Any, rewritten: Any) -> None:
    model = scaled(make_graph, np.float32(0.3), shown=True)
    _, counts = rewritten(model, FEEDS)
    assert SCALE not in counts
    _, reports = rewrite(model, get_target("ort-cpu"))
    skipped = next(report.skipped for report in reports if report.name == SCALE)
    assert skipped == [("product", "a scaled factor is read elsewhere too")]


def detour(make_graph: Any, last: tuple[int, ...]) -> onnx.ModelProto:
    """Keys by way of [batch * heads, tokens, width]."""
    nodes = [
        node("Reshape", ["k", "flat"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        node("Reshape", ["b", "back"], ["kt"], name="last"),
        node("Neg", ["kt"], ["y"]),
    ]
    weights = {"flat": np.array([2, 5, 4]), "back": np.array(last)}
    return make_graph(nodes, {"k": K}, {"y": (np.float32, last)}, **weights)


def test_a_detour_over_three_dimensions_is_one_transpose(make_graph: Any, rewritten: Any) -> None:
    result, counts = rewritten(detour(make_graph, (1, 2, 4, 5)), {"k": K})
    assert counts[TRANSPOSE] == 1
    assert operator_table(result) == {"Transpose": 1, "Neg": 1}


def test_a_detour_that_moves_more_stays_with_the_reason(make_graph: Any, rewritten: Any) -> None:
    model = detour(make_graph, (2, 1, 4, 5))
    result, counts = rewritten(model, {"k": K})
    assert TRANSPOSE not in counts
    assert operator_table(result)["Reshape"] == 2
    _, reports = rewrite(model, get_target("ort-cpu"))
    skipped = next(report.skipped for report in reports if report.name == TRANSPOSE)
    assert skipped == [("last", "the reshapes do more than transpose the last two dimensions")]
