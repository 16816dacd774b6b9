"""A second attention matrix for scores: whose readers get it, in which form, and where there is nothing to gain."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "scores read a matrix of their own"
node = helper.make_node
DRAW = np.random.default_rng(0)


def attention(make_graph: Any, tokens: int, *readers: Any, bias: bool = False) -> tuple[onnx.ModelProto, Any]:
    """softmax(q k^T + bias) v, and what reads the softmax besides."""
    shape = (2, 3, tokens, 4)
    given = {name: DRAW.standard_normal(shape).astype(np.float32) for name in "qkv"}
    nodes = [node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "t"], ["l" if bias else "b"])]
    if bias:
        given["bias"] = DRAW.standard_normal((2, 1, 1, tokens)).astype(np.float32)
        nodes.append(node("Add", ["bias", "l"], ["b"]))
    nodes += [node("Softmax", ["b"], ["p"], axis=-1), node("MatMul", ["p", "v"], ["o"]), *(r for r, _, _ in readers)]
    outputs = {"o": (np.float32, shape)} | {name: (np.float32, size) for _, name, size in readers}
    row = DRAW.random((1, 1, 1, tokens)).astype(np.float32)
    return make_graph(nodes, given, outputs, row=row, axes=np.array([1, 2])), given


def row_sum(tokens: int) -> Any:
    return node("MatMul", ["row", "p"], ["s"]), "s", (2, 3, 1, tokens)


def mean(tokens: int) -> Any:
    return node("ReduceMean", ["p", "axes"], ["m"], keepdims=0), "m", (2, tokens)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [8, 10, 11])
def test_sums_over_queries_read_rows_of_their_own_matrix(
    tokens: int, bias: bool, make_graph: Any, rewritten: Any
) -> None:
    model, given = attention(make_graph, tokens, row_sum(tokens), bias=bias)
    result, counts = rewritten(model, given, precision="fp16")
    assert counts[NAME] == 1
    table = operator_table(result)
    assert (table["Softmax"], table["MatMul"], table["ReduceSum"]) == (2, 3, 1)
    assert table.get("Concat", 0) == tokens % 2  # queries of zeros, up to a multiple of 8
    probabilities = [each.output[0] for each in result.graph.node if each.op_type == "Softmax"]
    readers = [[each.op_type for each in result.graph.node if name in each.input] for name in probabilities]
    assert sorted(readers) == [["MatMul"], ["Mul"]]


def test_other_readers_get_it_turned_and_without_more_queries(make_graph: Any, rewritten: Any) -> None:
    model, given = attention(make_graph, 11, mean(11), row_sum(11))
    result, counts = rewritten(model, given, precision="bf16")
    assert counts[NAME] == 1
    assert "Concat" not in operator_table(result)


@pytest.mark.parametrize(("target", "precision"), [("trt-8.5", "fp32"), ("ort-cpu", "fp16")])
def test_where_no_attention_is_fused_it_is_not_made(
    target: str, precision: str, make_graph: Any, rewritten: Any
) -> None:
    model, given = attention(make_graph, 8, row_sum(8))
    result, counts = rewritten(model, given, target, precision=precision)
    assert NAME not in counts
    assert operator_table(result)["Softmax"] == 1


def test_an_attention_that_nothing_else_reads_stays(make_graph: Any, rewritten: Any) -> None:
    model, given = attention(make_graph, 8)
    _, counts = rewritten(model, given, precision="fp16")
    assert NAME not in counts
