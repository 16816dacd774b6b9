"""Prefix tokens inside the index instead of split off and concatenated.

::

    x --Slice[:, :p]--------------------------\\
    x --Slice[:, p:]--Gather(axis=1, idx [k])--Concat(axis=1)   =>   x --Gather(axis=1, Concat([0..p-1], idx + p))

1. batch 1, after `gather`: the patches' Gather is along axis 1 with a one-dimensional index.
2. batch B, after `gather`: the patches are gathered from rows, offset by image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, producer, static_shape


@dataclass(frozen=True)
class Match:
    """Prefix and picked patches of one tensor, concatenated.

    Attributes:
        node: the Concat.
        source: [batch, tokens, width].
        shape: of the source.
        prefix: tokens that are always kept.
        index: of the patches that are picked.
        rows: whether it counts through the images, as in case 2.
    """

    node: gs.Node
    source: gs.Tensor
    shape: list[int]
    prefix: int
    index: gs.Tensor
    rows: bool


def _token_slice(tensor: gs.Tensor) -> tuple[gs.Tensor, int, int] | None:
    """(source, start, end) of a Slice along axis 1 with step 1, ends clipped to the source, else None."""
    node = producer(tensor, "Slice")
    if node is None or len(node.inputs) < 4:
        return None
    starts, ends, axes = (constant(value) for value in node.inputs[1:4])
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else np.array([1])
    source = static_shape(node.inputs[0])
    if starts is None or ends is None or axes is None or steps is None or source is None:
        return None
    if len(axes) != 1 or int(axes[0]) % len(source) != 1 or steps.tolist() != [1]:
        return None
    start, end, size = int(starts[0]), int(ends[0]), source[1]
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    return node.inputs[0], start, min(end, size)


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 and 2."""
    if len(node.inputs) != 2 or int(node.attrs.get("axis", 0)) != 1:
        return None
    front = _token_slice(node.inputs[0])
    gather = producer(node.inputs[1], "Gather")
    if front is None or gather is None or len(node.inputs[1].outputs) != 1:
        return None
    source, start, prefix = front
    shape = static_shape(source)
    if start != 0 or shape is None or len(shape) != 3:
        return None
    axis = int(gather.attrs.get("axis", 0))
    rows = producer(gather.inputs[0], "Reshape") if axis == 0 else None
    back = _token_slice(rows.inputs[0] if rows is not None else gather.inputs[0])
    if back is None or back[0] is not source or back[1:] != (prefix, shape[1]):
        return "prefix and patches are not the two parts of one tensor"
    if (axis == 0) != (rows is not None):
        return "the patches are gathered in another way"
    return Match(node, source, shape, prefix, gather.inputs[1], rows is not None)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """One gather on the whole tensor."""
    build, source, prefix, index = Builder(graph, "prefix"), found.source, found.prefix, found.index
    batch, tokens, width = found.shape
    dtype, out = index.dtype or np.int64, found.node.outputs[0]
    found.node.outputs.clear()
    if not found.rows:
        shape = static_shape(index) or [0]
        moved = build.node("Add", [index, build.const(prefix, dtype, "prefix")], shape, dtype)
        whole = build.node(
            "Concat",
            [build.const(np.arange(prefix), dtype, "front"), moved],
            [shape[0] + prefix],
            dtype,
            axis=0,
        )
        build.node("Gather", [source, whole], None, out.dtype, out, axis=1)
        return
    patches, count = tokens - prefix, (static_shape(index) or [0, 0])[1]
    # index = position among patches + image * patches; it becomes position among tokens + image * tokens.
    images = np.arange(batch).reshape(batch, 1)
    shift = build.const(images * (tokens - patches) + prefix, dtype, "shift")
    moved = build.node("Add", [index, shift], [batch, count], dtype)
    front = build.const(images * tokens + np.arange(prefix), dtype, "front")
    whole = build.node("Concat", [front, moved], [batch, count + prefix], dtype, axis=1)
    flat = [batch * tokens, width]
    rows = build.node("Reshape", [source, build.const(flat, "int64", "shape")], flat, source.dtype)
    build.node("Gather", [rows, whole], None, out.dtype, out, axis=0)


PREFIX_IN_INDEX = PatternPass("prefix tokens inside the index", frozenset({"Concat"}), match, apply)
