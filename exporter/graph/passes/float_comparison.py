"""Positions compared as floats, which OpenVINO does in one kernel with what is computed of the answers.

::

    place (float) --Cast(int)--Add--Unsqueeze--Equal--Cast--Mul--    =>   place --Add--Unsqueeze--Equal--Cast--Mul--
    0..n-1 (int) ------------------------------/                          0..n-1 (float32) ------/

OpenVINO compares integers in a kernel of their own that lays its answers out in blocks, and reorders them afterwards.
To make whole numbers of floats takes it a third of a microsecond each.

1. whole numbers are compared with constants below 2^24. Those are exact in float32, and what lies at or above it stays
   there when it is rounded, so that no answer changes;
2. what they are compared with was a place of `first_extreme` before it was an integer, and has only been moved and
   added to since: then it need not become one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, numpy_dtype, producer, static_shape
from .first_extreme import PLACE

EXACT = 2**24
SMALL = 2**20  # what is added to a place: far from where float32 counts no more
_MOVES = ("Gather", "GatherElements", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Match:
    """A comparison of integers.

    Attributes:
        node: it.
        side: the input that is constant, 0 or 1.
        values: its values.
    """

    node: gs.Node
    side: int
    values: np.ndarray


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 and 2."""
    dtype = numpy_dtype(node.inputs[0])
    if dtype is None or dtype.kind not in "iu" or dtype.itemsize < 4:
        return None
    known = [constant(tensor) for tensor in node.inputs]
    if (known[0] is None) == (known[1] is None):
        return None
    side = 0 if known[0] is not None else 1
    values = known[side]
    assert values is not None
    if np.abs(values).max(initial=0) >= EXACT:
        return "it compares with numbers that float32 does not hold exactly"
    return Match(node, side, values)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Compare as float32."""
    build, node = Builder(graph, "compare"), found.node
    other = node.inputs[1 - found.side]
    floats = _as_floats(build, other)
    if floats is None:
        floats = build.node("Cast", [other], static_shape(other), np.float32, to=1)
    values = build.const(found.values, np.float32, "values")
    node.inputs = [values, floats] if found.side == 0 else [floats, values]


def _as_floats(build: Builder, tensor: gs.Tensor) -> gs.Tensor | None:
    """Places as they were before they became integers, moved and added to as those; None: they were none."""
    node = producer(tensor, "Add", "Cast", *_MOVES)
    if node is None:
        return None
    if node.op == "Cast":
        return node.inputs[0] if node.name.startswith(PLACE) else None
    shape = static_shape(tensor)
    if node.op in _MOVES:
        source = _as_floats(build, node.inputs[0])
        return source and build.node(node.op, [source, *node.inputs[1:]], shape, np.float32, **node.attrs)
    for one, other in (node.inputs, node.inputs[::-1]):
        added = constant(other)
        source = None if added is None or np.abs(added).max(initial=0) >= SMALL else _as_floats(build, one)
        if source is not None and added is not None:
            return build.node("Add", [source, build.const(added, np.float32, "shift")], shape, np.float32)
    return None


FLOAT_COMPARISON = PatternPass(
    "positions compared as floats",
    frozenset({"Equal"}),
    match,
    apply,
    lambda context: context.target.runtime == "openvino",
)
