"""The place of a largest or smallest value by comparing, where the runtime would sort for it.

::

    x --ArgMax(axis)-- at   =>   x --ReduceMax(axis)--Equal--Where(places, n)--ReduceMin(axis)--Cast-- at
                                 x --------------------/

Of equal values the first one counts, as ArgMax has it. OpenVINO makes a TopK of an ArgMax, which takes its CPU plugin
twenty times as long as the two reductions.

1. ArgMax or ArgMin of float32 along one axis of known length; the first of equal values is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, numpy_dtype, static_shape

LONGEST = 2**20  # far from where float32 counts no more
PLACE = "extreme_Cast"  # names of the nodes that make integers of places begin so
AXES_ARE_INPUTS = 18  # of ReduceMax and ReduceMin


@dataclass(frozen=True)
class Match:
    """A node that asks for the place of an extreme value.

    Attributes:
        node: it.
        shape: of what it looks through.
        axis: along which, counted from the front.
        keeps: whether the axis stays, with length 1.
    """

    node: gs.Node
    shape: list[int]
    axis: int
    keeps: bool


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Case 1."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return "the input's shape is not static"
    if numpy_dtype(node.inputs[0]) != np.float32 or context.opset < AXES_ARE_INPUTS:
        return None
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    if node.attrs.get("select_last_index", 0) or shape[axis] >= LONGEST:
        return "it asks for the last of equal values, or for more places than float32 counts"
    return Match(node, shape, axis, bool(node.attrs.get("keepdims", 1)))


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Compare with the extreme, and take the least place."""
    build, node, shape, axis = Builder(graph, "extreme"), found.node, found.shape, found.axis
    x, out, count = node.inputs[0], node.outputs[0], found.shape[found.axis]
    node.outputs.clear()
    axes = build.const([axis], "int64", "axes")
    ends = [1 if each == axis else size for each, size in enumerate(shape)]
    kept = ends if found.keeps else ends[:axis] + ends[axis + 1 :]
    extreme = build.node(node.op.replace("Arg", "Reduce"), [x, axes], ends, np.float32, keepdims=1)
    here = build.node("Equal", [x, extreme], shape, np.bool_)
    line = [count if each == axis else 1 for each in range(len(shape))]
    places = build.const(np.arange(count).reshape(line), np.float32, "places")
    place = build.node("Where", [here, places, build.const(count, np.float32, "nowhere")], shape, np.float32)
    first = build.node("ReduceMin", [place, axes], kept, np.float32, keepdims=int(found.keeps))
    build.node("Cast", [first], kept, np.int64, out, to=7)


FIRST_EXTREME = PatternPass(
    "first extreme by comparing",
    frozenset({"ArgMax", "ArgMin"}),
    match,
    apply,
    lambda context: context.target.runtime == "openvino",
)
