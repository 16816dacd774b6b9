"""Attention (opset 23) in primitives, for targets that lack it; the way back from the pass 'fused Attention'.

::

    q, k, v [B,N,H*d] --Attention(q_num_heads=H)-- [B,N,H*d]
        =>  q --Reshape--Transpose--Mul(scale)--MatMul--(mask)--Softmax--MatMul--Transpose--Reshape-- [B,N,H*d]
            k --Reshape--Transpose-------------/                        /
            v --Reshape--Transpose-------------------------------------/

1. three dimensions, heads side by side, as drawn;
2. four dimensions [B,H,N,d]: nothing is reshaped;
3. fewer heads of keys and values than of queries: each of them is repeated for its group;
4. a mask that is added, or a boolean one, or a causal one (as many queries as keys);
5. the matrix after the softmax is read, too; `softmax_precision` float32 casts there and back.

A cache of keys, a soft cap and the matrix before the softmax stay, and are refused with their reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ...core.targets import Target
from .base import Builder, Context, PatternPass, numpy_dtype, onnx_type, static_shape
from .fused_attention import AFTER_SOFTMAX

_FLOAT32 = 1  # ONNX's number


@dataclass(frozen=True)
class Match:
    """An Attention.

    Attributes:
        node: it.
        query, key, value: shapes by head, [batch, heads, tokens, width of a head].
        dtype: of queries, keys and values.
        mask: added, or boolean; None: none.
    """

    node: gs.Node
    query: list[int]
    key: list[int]
    value: list[int]
    dtype: np.dtype
    mask: gs.Tensor | None

    @property
    def matrix(self) -> list[int]:
        """Shape of what the softmax makes, [batch, heads, queries, keys]."""
        return [*self.query[:3], self.key[2]]


def _given(tensors: list[gs.Tensor], position: int) -> gs.Tensor | None:
    return tensors[position] if position < len(tensors) and not tensors[position].is_empty() else None


def _read(node: gs.Node, position: int, context: Context) -> bool:
    out = _given(node.outputs, position)
    return out is not None and (bool(out.outputs) or out.name in context.outputs)


def match(node: gs.Node, context: Context) -> Match | str:
    """Cases 1 to 5."""
    shapes = [static_shape(tensor) for tensor in node.inputs[:3]]
    if any(shape is None for shape in shapes):
        return "the shapes of queries, keys and values are not static"
    query, key, value = (shape for shape in shapes if shape is not None)
    dtype = numpy_dtype(node.inputs[0])
    if dtype is None or dtype.kind != "f":
        return "its type is none of float16, float32 and float64"
    if any(_given(node.inputs, position) is not None for position in (4, 5, 6)):
        return "it has a cache of keys and values"
    if any(_read(node, position, context) for position in (1, 2)):
        return "its keys and values are handed on"
    if _read(node, 3, context) and int(node.attrs.get("qk_matmul_output_mode", 0)) != AFTER_SOFTMAX:
        return "its matrix before the softmax is read"
    if float(node.attrs.get("softcap", 0)):
        return "it has a soft cap"
    if len(query) == 3:
        heads, groups = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])
        query, key, value = (
            [shape[0], count, shape[1], shape[2] // count]
            for shape, count in ((query, heads), (key, groups), (value, groups))
        )
    if node.attrs.get("is_causal", 0) and query[2] != key[2]:
        return "it is causal with fewer queries than keys"
    found = Match(node, query, key, value, dtype, _given(node.inputs, 3))
    if found.mask is not None:
        shape, whole = static_shape(found.mask), found.matrix[::-1]
        if shape is None or any(have not in (1, want) for have, want in zip(shape[::-1], whole, strict=False)):
            return "its mask does not fit queries and keys"
    return found


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Write one Attention in primitives."""
    build, node, dtype = Builder(graph, "attention"), found.node, found.dtype
    query, key, value, matrix = found.query, found.key, found.value, found.matrix
    flat = len(node.inputs[0].shape) == 3
    out, shown = node.outputs[0], _given(node.outputs, 3)
    q, k, v = node.inputs[:3]
    node.outputs.clear()

    def reshape(tensor: gs.Tensor, shape: list[int], result: gs.Tensor | None = None) -> gs.Tensor:
        return build.node("Reshape", [tensor, build.const(shape, "int64", "shape")], shape, dtype, result)

    def transpose(tensor: gs.Tensor, shape: list[int], perm: list[int]) -> gs.Tensor:
        return build.node("Transpose", [tensor], [shape[axis] for axis in perm], dtype, perm=perm)

    def by_head(tensor: gs.Tensor, shape: list[int], turned: bool) -> gs.Tensor:
        """[B,H,N,d], or [B,H,d,N] if turned; one for every head of the queries."""
        if flat:
            apart = [shape[0], shape[2], shape[1], shape[3]]
            tensor = transpose(reshape(tensor, apart), apart, [0, 2, 3, 1] if turned else [0, 2, 1, 3])
        elif turned:
            tensor = transpose(tensor, shape, [0, 1, 3, 2])
        batch, heads, *rest = [*shape[:2], *(shape[:1:-1] if turned else shape[2:])]
        if heads == query[1]:
            return tensor
        group = query[1] // heads
        tensor = reshape(tensor, [batch, heads, 1, *rest])
        wide = [batch, heads, group, *rest]
        tensor = build.node("Expand", [tensor, build.const(wide, "int64", "groups")], wide, dtype)
        return reshape(tensor, [batch, query[1], *rest])

    scale = float(node.attrs.get("scale", 1 / math.sqrt(query[3])))
    scaled = build.node("Mul", [by_head(q, query, False), build.const(scale, dtype, "scale")], query, dtype)
    scores = build.node("MatMul", [scaled, by_head(k, key, True)], matrix, dtype)
    scores = _masked(build, scores, found)
    wide = int(node.attrs.get("softmax_precision", 0)) == _FLOAT32 and dtype.itemsize < 4
    last = shown if shown is not None and not wide else None
    if wide:
        scores = build.node("Cast", [scores], matrix, np.float32, to=_FLOAT32)
    weights = build.node("Softmax", [scores], matrix, np.float32 if wide else dtype, last, axis=-1)
    if wide:
        weights = build.node("Cast", [weights], matrix, dtype, shown, to=onnx_type(dtype))
    applied = [*query[:3], value[3]]
    values = by_head(v, value, False)
    result = build.node("MatMul", [weights, values], applied, dtype, None if flat else out)
    if flat:
        together = [query[0], query[2], query[1] * value[3]]
        reshape(transpose(result, applied, [0, 2, 1, 3]), together, out)


def _masked(build: Builder, scores: gs.Tensor, found: Match) -> gs.Tensor:
    """Case 4."""
    node, dtype, matrix, mask = found.node, found.dtype, found.matrix, found.mask
    lowest = np.finfo(dtype).min
    if node.attrs.get("is_causal", 0):
        seen = build.const(np.tri(matrix[2], matrix[3], dtype=np.bool_), np.bool_, "causal")
        scores = build.node("Where", [seen, scores, build.const(lowest, dtype, "lowest")], matrix, dtype)
    if mask is None:
        return scores
    if numpy_dtype(mask) == np.bool_:
        return build.node("Where", [mask, scores, build.const(lowest, dtype, "lowest")], matrix, dtype)
    return build.node("Add", [scores, mask], matrix, dtype)


def _takes(target: Target) -> bool:
    """Whether a target has Attention for float32, which a graph is in when passes see it."""
    return "Attention" not in target.lacks | dict(target.refuses).get("FLOAT", frozenset())


PLAIN_ATTENTION = PatternPass(
    "Attention to primitives",
    frozenset({"Attention"}),
    match,
    apply,
    lambda context: context.target.opset < 23 or not _takes(context.target),
)
