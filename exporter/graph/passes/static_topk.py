"""TopK in the form that every runtime takes.

::

    x(int) --TopK--> values, indices      =>   x --Cast(float)--TopK--Cast--> values, indices
    x --TopK(k = n, sorted)--Slice[:j]    =>   x --TopK(k = j)

1. integers are ranked as float32 (TensorRT 8.5 has no integer TopK); exact up to 2^24;
2. of a sorted TopK only the first j are read, by every reader alike: K shrinks to j;
3. `sorted` is set where it was 0: TensorRT knows no other form;
4. a K without dimensions (TorchScript's argsort) gets one, as the operator wants it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, numpy_dtype, onnx_type, static_shape


@dataclass(frozen=True)
class Match:
    """A TopK of another form.

    Attributes:
        node: the TopK.
        axis: along which it ranks, counted from the front.
        cast: integer type that is ranked as float32 (case 1); None: it stays.
        k: the new K (cases 2 and 4); None: it stays.
    """

    node: gs.Node
    axis: int
    cast: np.dtype | None
    k: int | None


def _first(node: gs.Node, axis: int) -> int | None:
    """How many leading entries along `axis` a Slice keeps, else None."""
    if node.op != "Slice" or len(node.inputs) < 4:
        return None
    starts, ends, axes = (constant(tensor) for tensor in node.inputs[1:4])
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else np.array([1])
    if starts is None or ends is None or axes is None or steps is None:
        return None
    if starts.tolist() != [0] or steps.tolist() != [1] or len(axes) != 1 or ends[0] <= 0:
        return None
    rank = len(node.inputs[0].shape or [])
    return int(ends[0]) if int(axes[0]) % max(rank, 1) == axis else None


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 to 4."""
    shape = static_shape(node.inputs[0])
    k = constant(node.inputs[1])
    if k is None:
        return "K is computed, not constant; trace the model with fixed counts"
    if shape is None:
        return "the input's shape is not static"
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    dtype = numpy_dtype(node.inputs[0])
    cast = dtype if dtype is not None and dtype.kind in "iu" and not context.target.integer_topk else None
    changed = k.ndim == 0
    count, is_sorted = int(k.reshape(-1)[0]), bool(node.attrs.get("sorted", 1))
    firsts = [_first(reader, axis) for out in node.outputs for reader in out.outputs]
    shown = any(out.name in context.outputs for out in node.outputs)
    if firsts and not shown and all(first is not None for first in firsts) and is_sorted:
        most = max(first for first in firsts if first is not None)
        changed, count = changed or most < count, min(most, count)
    if cast is None and not changed and is_sorted:
        return None
    return Match(node, axis, cast, count if changed else None)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Rewrite one TopK in place."""
    build, node, dtype = Builder(graph, "topk"), found.node, found.cast
    if not node.attrs.get("sorted", 1):
        node.attrs["sorted"] = 1
    if found.k is not None:
        node.inputs[1] = build.const([found.k], "int64", "k")
        for out in node.outputs:
            shape = static_shape(out)
            if shape is not None:
                shape[found.axis] = found.k
                out.shape = shape
    if dtype is not None:
        source = node.inputs[0]
        node.inputs[0] = build.node("Cast", [source], static_shape(source), np.float32, to=1)
        values = node.outputs[0]
        raw = gs.Variable(build.name("values"), dtype=np.float32, shape=values.shape)
        node.outputs[0] = raw
        build.node("Cast", [raw], static_shape(values), dtype, values, to=onnx_type(dtype))


STATIC_TOPK = PatternPass("TopK with constant K", frozenset({"TopK"}), match, apply)
