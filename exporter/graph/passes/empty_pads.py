"""Pads that pad nothing are taken out.

::

    x --Pad(0, 0, ..., 0)-- y   =>   x -- y

Swin pads every window to its size, which is nothing where the image fits.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from .base import Context, PatternPass, constant


def match(node: gs.Node, context: Context) -> gs.Node | str | None:
    """A Pad whose amounts are constant zeros."""
    amounts = constant(node.inputs[1])
    if amounts is None or amounts.any():
        return None
    if node.outputs[0].name in context.outputs:
        return "its output is the graph's, which keeps its name"
    return node


def apply(graph: gs.Graph, node: gs.Node, context: Context) -> None:
    """Readers read what was padded."""
    source, out = node.inputs[0], node.outputs[0]
    for reader in list(out.outputs):
        reader.inputs = [source if tensor is out else tensor for tensor in reader.inputs]
    node.outputs.clear()


NO_EMPTY_PADS = PatternPass("pads of nothing taken out", frozenset({"Pad"}), match, apply)
