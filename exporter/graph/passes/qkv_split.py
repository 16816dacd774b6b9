"""Query, key and value cut out of one tensor by a single Split.

::

    qkv --Transpose(2,0,3,1,4)--+--Slice[0]--Squeeze-- q          qkv --Transpose--Split--Squeeze-- q
                                +--Slice[1]--Squeeze-- k    =>                        \\---Squeeze-- k
                                +--Slice[2]--Squeeze-- v                               \\--Squeeze-- v

1. all slices of a tensor take one row each along axis 0 and together all rows: one Split.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, static_shape


@dataclass(frozen=True)
class Match:
    """A tensor cut into rows.

    Attributes:
        tensor: [rows, ...].
        slices: the node that takes each row, in order.
    """

    tensor: gs.Tensor
    slices: tuple[gs.Node, ...]


def _row(node: gs.Node) -> int | None:
    """The row along axis 0 that a Slice takes, else None."""
    if node.op != "Slice" or len(node.inputs) < 4:
        return None
    starts, ends, axes = (constant(tensor) for tensor in node.inputs[1:4])
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    if starts is None or ends is None or axes is None or (steps is not None and steps.tolist() != [1]):
        return None
    if axes.tolist() != [0] or ends[0] - starts[0] != 1 or starts[0] < 0:
        return None
    return int(starts[0])


def match(node: gs.Node, context: Context) -> Match | None:
    """Case 1."""
    out = node.outputs[0]
    shape = static_shape(out)
    if shape is None or len(shape) != 5 or len(out.outputs) != shape[0] or shape[0] < 2:
        return None
    rows = [_row(consumer) for consumer in out.outputs]
    if sorted(row for row in rows if row is not None) != list(range(shape[0])):
        return None
    slices = sorted(zip(rows, out.outputs, strict=True), key=lambda pair: pair[0] or 0)
    return Match(out, tuple(consumer for _, consumer in slices))


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """One Split with equal parts."""
    build = Builder(graph, "qkv")
    outputs = []
    for consumer in found.slices:
        outputs.append(consumer.outputs[0])
        consumer.outputs.clear()
    sizes = build.const([1] * len(found.slices), "int64", "parts")
    graph.nodes.append(gs.Node("Split", build.name("Split"), {"axis": 0}, [found.tensor, sizes], outputs))


ONE_SPLIT = PatternPass("qkv split once", frozenset({"Transpose"}), match, apply)
