"""One row times a matrix as a product and a sum, which TensorRT fuses with its neighbours; a matrix product it cannot.

::

    row [..,1,d] --MatMul-- [..,1,n]   =>   row --Mul--ReduceSum(-1)--Reshape-- [..,1,n]
    k [..,n,d] --Transpose--/               k ---/

    row [..,1,d] --MatMul-- [..,1,n]   =>   row --Transpose--Mul--ReduceSum(-2, keepdims)-- [..,1,n]
    m [..,d,n] --/                          m ---------------/

A batch of such products runs as a matrix product kernel of its own, with copies around it where d or n is odd.

1. the right factor is a transposed tensor: its rows are taken as they lie;
2. any other right factor that is not constant; the left one may be.

The first factor may have fewer leading dimensions, or some of 1, as MatMul broadcasts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, numpy_dtype, producer, static_shape


@dataclass(frozen=True)
class Match:
    """A product of one row a matrix.

    Attributes:
        node: the MatMul.
        matrix: [.., d, n], or [.., n, d] where `by_rows`.
        by_rows: whether the matrix lies transposed, as in case 1.
    """

    node: gs.Node
    matrix: gs.Tensor
    by_rows: bool


def match(node: gs.Node, context: Context) -> Match | None:
    """Cases 1 and 2."""
    left, right = node.inputs
    row, matrix, dtype = static_shape(left), static_shape(right), numpy_dtype(left)
    if row is None or matrix is None or dtype is None or dtype.kind != "f" or constant(right) is not None:
        return None
    if len(row) < 3 or len(matrix) != len(row) or row[-2] != 1 or min(matrix[-2:]) < 2:
        return None
    turned = producer(right, "Transpose")
    if turned is not None and list(turned.attrs.get("perm", [])) == _turn(len(row)):
        return Match(node, turned.inputs[0], True)
    return Match(node, right, False)


def _turn(rank: int) -> list[int]:
    """A permutation that swaps the last two axes."""
    return [*range(rank - 2), rank - 1, rank - 2]


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Multiply and sum."""
    build, node = Builder(graph, "row"), found.node
    left, out = node.inputs[0], node.outputs[0]
    node.outputs.clear()
    row, shape, matrix = static_shape(left), static_shape(out), static_shape(found.matrix)
    assert row is not None
    assert shape is not None
    assert matrix is not None
    lead, dtype = shape[:-2], left.dtype
    whole = [*lead, *matrix[-2:]]
    if found.by_rows:
        product = build.node("Mul", [left, found.matrix], whole, dtype)
        axis = build.const([-1], "int64", "axis")
        total = build.node("ReduceSum", [product, axis], whole[:-1], dtype, keepdims=0)
        build.node("Reshape", [total, build.const(shape, "int64", "shape")], shape, out.dtype, out)
        return
    value = constant(left)
    if value is not None:
        column: gs.Tensor = build.const(np.swapaxes(value, -1, -2), value.dtype, "column")
    else:
        column = build.node("Transpose", [left], [*row[:-2], row[-1], 1], dtype, perm=_turn(len(row)))
    product = build.node("Mul", [column, found.matrix], whole, dtype)
    build.node("ReduceSum", [product, build.const([-2], "int64", "axis")], shape, out.dtype, out, keepdims=1)


ROW_PRODUCTS = PatternPass(
    "one-row products as sums",
    frozenset({"MatMul"}),
    match,
    apply,
    lambda context: context.for_tensorrt,
)
