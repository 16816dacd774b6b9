"""Merging without scatter: a one-hot matrix product, exact for repeated indices on every backend.

::

    dst [B,N,C], idx [B,r,C], src [B,r,C] --ScatterElements(axis=1, add)
        =>  dst + Equal(idx [B,1,r], 0..N-1 [N,1])^float [B,N,r] @ src

    the same with reduction=none   =>   dst * (1 - hit) + one_hot @ src,   hit [B,N,1] = min(one_hot @ 1, 1)

TensorRT 8.x takes `reduction="add"` and overwrites instead, without an error; 10.x makes a plugin of it.

1. ScatterElements along axis a: an index [.., r, ..] that is the same over all dimensions after a (torch's
   scatter_add, scatter_reduce, of tokens or of sizes);
2. ScatterND with [r,1]: whole rows of the first dimension (index_add, index_put);
3. ScatterND with [B,r,2] whose first column is the image: rows of [B,N,..] (index_put with a batch);
4. reduction none in forms 1 to 3, where no target is named twice (TopK's indices, constants), or all updates are one
   constant value, so that the order of writing does not matter;
5. integers go through float32 and back: exact below 2^24.

An index that might be negative is compared with 0..N-1 and with -N..-1. Anything else stays and is refused with its
reason, because no scatter may survive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, numpy_dtype, onnx_type, static_shape
from .token_index import TokenIndex, paired_index, token_index


@dataclass(frozen=True)
class Match:
    """A scatter of whole tokens.

    Attributes:
        node: the scatter.
        rows: its targets.
        data: shape of what is written to.
        tokens: of one image in it.
        dtype: of what is written.
        overwrite: whether it overwrites instead of adding.
        uniform: the one value that it writes; None: it writes tokens.
    """

    node: gs.Node
    rows: TokenIndex
    data: list[int]
    tokens: int
    dtype: np.dtype
    overwrite: bool = False
    uniform: float | None = None


def _rows(node: gs.Node, data: list[int], index: list[int], updates: list[int]) -> TokenIndex | str:
    """The target rows of a scatter, or why it has none."""
    if node.op == "ScatterElements":
        axis = int(node.attrs.get("axis", 0)) % len(data)
        if index != updates or index[:axis] != data[:axis] or index[axis + 1 :] != data[axis + 1 :]:
            return "it does not write whole tokens"
        return token_index(node.inputs[1], axis) or "the index differs along the width"
    if index[-1] == 1 and len(index) == 2:
        return token_index(node.inputs[1], 0) or "the index is not one row each"
    if index[-1] == 2 and len(data) >= 2 and len(index) == 3:
        return paired_index(node.inputs[1], data[0]) or "the index does not name tokens of its own image"
    return "the index does not name whole rows"


def match(node: gs.Node, context: Context) -> Match | str:
    """Cases 1 to 5."""
    reduction = node.attrs.get("reduction", "none")
    data, index, updates = (static_shape(tensor) for tensor in node.inputs[:3])
    if data is None or index is None or updates is None:
        return "shapes are not static"
    if reduction not in ("add", "none"):
        return f"reduction is {reduction!r}; only sums can be written as a matrix product"
    dtype = numpy_dtype(node.inputs[2])
    if dtype is None or dtype.kind not in "fiu":
        return "its type is neither float nor integer"
    rows = _rows(node, data, index, updates)
    if isinstance(rows, str):
        return rows
    axis = int(node.attrs.get("axis", 0)) % len(data) if node.op == "ScatterElements" else index[-1] - 1
    if reduction == "add":
        return Match(node, rows, data, data[axis], dtype)
    uniform, written = None, constant(node.inputs[2])
    if written is not None and written.size > 0 and bool((written == written.flat[0]).all()):
        uniform = float(written.flat[0])
    elif not rows.distinct(data[axis]):
        return "reduction is 'none' and a target may be named twice, so the order of writing would matter"
    return Match(node, rows, data, data[axis], dtype, True, uniform)


def _one_hot(build: Builder, found: Match, dtype: np.dtype) -> gs.Tensor:
    """[B or 1, N, r]: 1 where source r goes to token N."""
    rows, tokens = found.rows, found.tokens
    column = rows.tensor(build, [rows.images, 1, rows.count])
    shape = [rows.images, tokens, rows.count]

    def equal(first: int) -> gs.Tensor:
        positions = np.arange(first, first + tokens).reshape(1, tokens, 1)
        return build.node("Equal", [column, build.const(positions, rows.dtype, "positions")], shape, np.bool_)

    hit = equal(0)
    if not rows.non_negative():
        hit = build.node("Or", [hit, equal(-tokens)], shape, np.bool_)
    return build.node("Cast", [hit], shape, dtype, to=onnx_type(dtype))


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Replace one scatter."""
    build, node = Builder(graph, "merge"), found.node
    rows, tokens, shape, dtype = found.rows, found.tokens, found.data, found.dtype
    target, updates, out = node.inputs[0], node.inputs[2], node.outputs[0]
    node.outputs.clear()
    work = dtype if dtype.kind == "f" else np.dtype(np.float32)
    width = math.prod(shape) // (rows.lead * tokens)

    def reshape(tensor: gs.Tensor, size: list[int], kind: np.dtype = work) -> gs.Tensor:
        if static_shape(tensor) == size:
            return tensor
        return build.node("Reshape", [tensor, build.const(size, "int64", "shape")], size, kind)

    def back(tensor: gs.Tensor) -> gs.Tensor:
        tensor = reshape(tensor, shape)
        return tensor if work == dtype else build.node("Cast", [tensor], shape, dtype, to=onnx_type(dtype))

    one_hot = _one_hot(build, found, work)
    whole = [rows.lead, tokens, width]
    if found.uniform is None:
        if work != dtype:
            updates = build.node("Cast", [updates], static_shape(updates), work, to=onnx_type(work))
        updates = reshape(updates, [rows.lead, rows.count, width])
        added = build.node("MatMul", [one_hot, updates], whole, work)
    if not found.overwrite:
        build.node("Add", [target, back(added)], shape, out.dtype, out)
        return
    ones = build.const(np.ones((rows.count, 1)), work, "ones")
    narrow = [rows.images, tokens, 1]
    hits = build.node("MatMul", [one_hot, ones], narrow, work)
    hit = build.node("Min", [hits, build.const(1, work, "one")], narrow, work)
    if found.uniform is not None:
        value = build.const(np.full((rows.lead, 1, width), found.uniform), work)
        added = build.node("Mul", [hit, value], whole, work)
    stays = build.node("Sub", [build.const(1, work, "one"), hit], narrow, work)
    if work != dtype:
        target = build.node("Cast", [target], shape, work, to=onnx_type(work))
    kept = build.node("Mul", [reshape(target, whole), stays], whole, work)
    result = build.node("Add", [kept, added], whole, work)
    if work != dtype:
        result = build.node("Cast", [result], whole, dtype, to=onnx_type(dtype))
    build.node("Reshape", [result, build.const(shape, "int64", "shape")], shape, out.dtype, out)


SCATTER_FREE = PatternPass("merge without scatter", frozenset({"ScatterElements", "ScatterND"}), match, apply)
