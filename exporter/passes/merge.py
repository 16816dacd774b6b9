"""Merging without scatter: a one-hot matrix product, exact for repeated indices on every backend.

::

    dst [B,N,C], idx [B,r,C], src [B,r,C] --ScatterElements(axis=1, add)
        =>  dst + Equal(idx [B,1,r], 0..N-1 [N,1])^float [B,N,r] @ src

TensorRT 8.x takes `reduction="add"` and overwrites instead, without an error; 10.x makes a plugin of it.

1. ScatterElements, reduction add, axis 1 of three, index expanded over the last axis;
2. ScatterND, reduction add, whole rows: of a [rows, C] tensor with index [.., 1], or of [B, N, C] with [B, r, 2]
   whose first column is the image.
Anything else stays and is refused with its reason, because no scatter may survive.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, Found, Match, Pass, constant, producer, static_shape


def _row_index(index: gs.Tensor) -> gs.Tensor | None:
    """The [B, r, 1] or [B, r] index under an expansion over the last axis, else None."""
    node = producer(index, "Expand")
    source = node.inputs[0] if node is not None else index
    shape = static_shape(source)
    return source if shape is not None and len(shape) == 3 and shape[2] == 1 else None


def match(node: gs.Node, context: Context) -> Found:
    """Cases 1 and 2."""
    reduction = node.attrs.get("reduction", "none")
    data, index, updates = (static_shape(tensor) for tensor in node.inputs[:3])
    if data is None or index is None or updates is None:
        return "shapes are not static"
    if reduction != "add":
        return f"reduction is {reduction!r}; only sums can be written as a matrix product"
    if node.op == "ScatterElements":
        if len(data) != 3 or int(node.attrs.get("axis", 0)) % 3 != 1 or updates[2] != data[2]:
            return "it does not add whole tokens along axis 1 of [batch, tokens, width]"
        rows = _row_index(node.inputs[1])
        if rows is None:
            return "the index differs along the width"
        return {"node": node, "index": rows, "data": data, "count": updates[1]}
    if index[-1] == 1 and len(data) == 2:
        return {
            "node": node,
            "index": node.inputs[1],
            "data": [1, *data],
            "count": int(np.prod(index[:-1])),
            "flat": True,
        }
    if index[-1] == 2 and len(data) == 3 and len(index) == 3 and index[0] == data[0]:
        return {"node": node, "index": node.inputs[1], "data": data, "count": index[1], "pairs": True}
    return "the index does not name whole rows"


def _column(build: Builder, found: Match) -> gs.Tensor:
    """The index as [B, 1, r]."""
    index, (batch, _, _), count = found["index"], found["data"], found["count"]
    dtype = index.dtype or np.int64
    if "pairs" in found:
        images = constant(index)
        if images is None:
            # [B, r, 2]: column 0 is the image itself, column 1 the token; take column 1.
            bounds = [build.const([value], "int64", "slice") for value in (1, 2, 2)]
            index = build.node("Slice", [index, *bounds], [batch, count, 1], dtype)
        else:
            index = build.const(images[..., 1:], dtype, "index")
    shape = build.const([batch, 1, count], "int64", "shape")
    return build.node("Reshape", [index, shape], [batch, 1, count], dtype)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Replace one scatter."""
    build, node = Builder(graph, "merge"), found["node"]
    batch, tokens, width = found["data"]
    count, out = found["count"], node.outputs[0]
    data, updates, dtype = node.inputs[0], node.inputs[2], node.inputs[2].dtype or np.float32
    node.outputs.clear()
    column = _column(build, found)
    positions = build.const(np.arange(tokens).reshape(1, tokens, 1), column.dtype, "positions")
    hit = build.node("Equal", [column, positions], [batch, tokens, count], np.bool_)
    one_hot = build.node("Cast", [hit], [batch, tokens, count], dtype, to=_CODE[np.dtype(dtype)])
    if "flat" in found:
        shape = build.const([1, count, width], "int64", "shape")
        updates = build.node("Reshape", [updates, shape], [1, count, width], dtype)
    added = build.node("MatMul", [one_hot, updates], [batch, tokens, width], dtype)
    if "flat" in found:
        added = build.node("Reshape", [added, build.const([tokens, width], "int64", "shape")], [tokens, width], dtype)
    build.node("Add", [data, added], None, out.dtype, out)


_CODE = {np.dtype(np.float32): 1, np.dtype(np.float16): 10, np.dtype(np.float64): 11}
SCATTER_FREE = Pass("merge without scatter", frozenset({"ScatterElements", "ScatterND"}), match, apply)
