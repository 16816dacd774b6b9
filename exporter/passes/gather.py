"""Token gathers without expanded indices.

::

    idx [B,k] --Unsqueeze--Expand [B,k,C]--\\                 1. B = 1:  Gather(x, idx [k], axis=1)
    x [B,N,C] ---------------GatherElements(axis=1)   =>     2. B > 1:  Gather(x [B*N,C], idx + b*N, axis=0), reshaped

The expanded form reads C copies of every index; both results read each index once.

3. ids [1,N] gathered by [1,k]: a plain Gather too.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, Found, Match, Pass, producer, static_shape


def _token_index(expanded: gs.Tensor, width: int) -> gs.Tensor | None:
    """The [B, k] index under an expansion to [B, k, C], else None."""
    node = producer(expanded, "Expand")
    tensor = node.inputs[0] if node is not None else expanded
    shape = static_shape(tensor)
    if shape is None or len(shape) != 3 or (shape[2] != 1 and not (width == 1 and node is None)):
        return None
    inner = producer(tensor, "Unsqueeze", "Reshape")
    if inner is None:
        return None
    source = static_shape(inner.inputs[0])
    return inner.inputs[0] if source == shape[:2] else None


def match(node: gs.Node, context: Context) -> Found:
    """Cases 1 to 3."""
    if int(node.attrs.get("axis", 0)) != 1:
        return None
    data, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if data is None or result is None:
        return "shapes are not static"
    if len(data) == 2:
        return {"node": node, "index": node.inputs[1], "data": data} if data[0] == 1 else None
    if len(data) != 3 or result[2] != data[2]:
        return None
    index = _token_index(node.inputs[1], data[2])
    if index is None:
        return "the index is not one position a token, expanded over the width"
    return {"node": node, "index": index, "data": data}


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Rewire one gather."""
    build, node = Builder(graph, "gather"), found["node"]
    x, out, index = node.inputs[0], node.outputs[0], found["index"]
    batch, count = found["data"][0], int(static_shape(out)[1])  # type: ignore[index]
    node.outputs.clear()
    dtype = index.dtype or np.int64
    if batch == 1:
        flat = build.node("Reshape", [index, build.const([count], "int64", "shape")], [count], dtype)
        build.node("Gather", [x, flat], None, out.dtype, out, axis=1)
        return
    tokens, width = found["data"][1:]
    rows = build.node(
        "Reshape",
        [x, build.const([batch * tokens, width], "int64", "shape")],
        [batch * tokens, width],
        x.dtype,
    )
    offset = build.const(np.arange(batch).reshape(batch, 1) * tokens, dtype, "offset")
    shifted = build.node("Add", [index, offset], [batch, count], dtype)
    build.node("Gather", [rows, shifted], None, out.dtype, out, axis=0)


PLAIN_GATHER = Pass("gather without expanded indices", frozenset({"GatherElements"}), match, apply)
