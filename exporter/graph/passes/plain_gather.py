"""Token gathers that read each index once.

::

    idx [B,k] --Unsqueeze--Expand [B,k,C]--\\                 1. B = 1, or one index for all images:
    x [B,N,C] ---------------GatherElements(axis=1)                Gather(x, idx [k], axis=1)
                                                      =>     2. B > 1:
    (image, idx) [B,k,2]--\\                                       Gather(x [B*N,C], idx + b*N, axis=0)
    x [B,N,C] ------------GatherND

The expanded form reads C copies of every index, and GatherND a pair per token.

3. ids [1,N] gathered by [1,k]: a plain Gather too;
4. GatherND(batch_dims=1) with [B,k,1], and GatherND with pairs whose first column is the image: as 1 or 2;
5. GatherND with [..,1]: whole rows, a Gather along axis 0.

Case 2 lays images end to end, so it needs an index that is never negative; an index that might be stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, static_shape
from .token_index import TokenIndex, paired_index, token_index


@dataclass(frozen=True)
class Match:
    """A gather of whole tokens, or of whole rows.

    Attributes:
        node: the gather.
        data: shape of what is gathered from.
        index: positions of tokens; None: of rows of the first dimension.
        rows: shape of the index in that case.
    """

    node: gs.Node
    data: list[int]
    index: TokenIndex | None = None
    rows: tuple[int, ...] = ()


_NEGATIVE = "its index might be negative, which means another token once images are laid end to end"


def _checked(node: gs.Node, index: TokenIndex, data: list[int]) -> Match | str:
    if not index.shared and not index.non_negative():
        return _NEGATIVE
    return Match(node, data, index)


def match_elements(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 to 3."""
    data, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if data is None or result is None:
        return "shapes are not static"
    if int(node.attrs.get("axis", 0)) % len(data) != 1 or result[0] != data[0] or result[2:] != data[2:]:
        return None
    index = token_index(node.inputs[1], 1)
    if index is None:
        return "the index is not one position a token, expanded over the width"
    if len(data) == 2 and not index.shared:
        return None  # nothing is expanded
    return _checked(node, index, data)


def match_nd(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 4 and 5."""
    data, index = static_shape(node.inputs[0]), static_shape(node.inputs[1])
    if data is None or index is None:
        return "shapes are not static"
    batch_dims = int(node.attrs.get("batch_dims", 0))
    if batch_dims == 0 and index[-1] == 1:
        return Match(node, data, rows=tuple(index[:-1]))
    found = None
    if batch_dims == 0 and index[-1] == 2 and len(data) >= 2:
        found = paired_index(node.inputs[1], data[0])
    elif batch_dims == 1 and len(index) == 3 and index[-1] == 1:
        found = token_index(node.inputs[1], 1)
    if found is None:
        return "the index is not one position a token of its own image"
    return _checked(node, found, data)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Rewire one gather."""
    build, node, index, data = Builder(graph, "gather"), found.node, found.index, found.data
    x, out = node.inputs[0], node.outputs[0]
    if index is None:
        rows, positions = list(found.rows), node.inputs[1]
        shape = build.const(rows, "int64", "shape")
        node.outputs.clear()
        flat = build.node("Reshape", [positions, shape], rows, positions.dtype or np.int64)
        build.node("Gather", [x, flat], None, out.dtype, out, axis=0)
        return
    node.outputs.clear()
    if index.shared:
        build.node("Gather", [x, index.tensor(build, [index.count])], None, out.dtype, out, axis=1)
        return
    batch, tokens = data[:2]
    flat = [batch * tokens, *data[2:]]
    rows = build.node("Reshape", [x, build.const(flat, "int64", "shape")], flat, x.dtype)
    offset = build.const(np.arange(batch).reshape(batch, 1) * tokens, index.dtype, "offset")
    positions = index.tensor(build, [batch, index.count])
    shifted = build.node("Add", [positions, offset], [batch, index.count], index.dtype)
    build.node("Gather", [rows, shifted], None, out.dtype, out, axis=0)


PLAIN_GATHER = PatternPass("gather without expanded indices", frozenset({"GatherElements"}), match_elements, apply)
PLAIN_GATHER_ND = PatternPass("gather without index pairs", frozenset({"GatherND"}), match_nd, apply)
