"""Query, key and value cut apart as groups of heads, which TensorRT writes in one kernel instead of three.

::

    qkv [B,N,3D] --Reshape [B,N,3,H,d]--Transpose(2,0,3,1,4)--Split(0)--Squeeze x3-- q, k, v [B,H,N,d]
        =>  qkv --Reshape [B,N,3H,d]--Transpose(0,2,1,3)--Split(1)-- q, k, v

TensorRT moves a Split over the leading axis into the projection: one product cut into three again, and three kernels
that add the bias and turn the heads. Cut over heads, the bias goes into the product and one kernel does the rest.

1. the projection is laid out as timm does, and nothing but the three Squeeze reads its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, only_consumer, producer, static_shape


@dataclass(frozen=True)
class Match:
    """A projection cut into equal parts.

    Attributes:
        qkv: [batch, tokens, parts * width].
        shape: [batch, tokens, parts, heads, width of a head].
        parts: [batch, heads, tokens, width of a head] each.
    """

    qkv: gs.Tensor
    shape: list[int]
    parts: tuple[gs.Tensor, ...]


def match(node: gs.Node, context: Context) -> Match | None:
    """Case 1."""
    if int(node.attrs.get("axis", 0)) != 0 or any(out.name in context.outputs for out in node.outputs):
        return None
    turn = producer(node.inputs[0], "Transpose")
    if turn is None or list(turn.attrs.get("perm", [])) != [2, 0, 3, 1, 4] or len(node.inputs[0].outputs) != 1:
        return None
    apart = producer(turn.inputs[0], "Reshape")
    shape, cuts = static_shape(turn.inputs[0]), [static_shape(out) for out in node.outputs]
    if apart is None or shape is None or len(node.outputs) != shape[2] or any(not cut or cut[0] != 1 for cut in cuts):
        return None
    squeezes = [only_consumer(out) for out in node.outputs]
    for squeeze in squeezes:
        axes = None if squeeze is None or len(squeeze.inputs) < 2 else constant(squeeze.inputs[1])
        if squeeze is None or squeeze.op != "Squeeze" or axes is None or axes.reshape(-1).tolist() != [0]:
            return None
    return Match(apart.inputs[0], shape, tuple(squeeze.outputs[0] for squeeze in squeezes if squeeze is not None))


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """One Split over groups of heads."""
    build = Builder(graph, "heads")
    batch, tokens, count, heads, width = found.shape
    flat, turned = [batch, tokens, count * heads, width], [batch, count * heads, tokens, width]
    dtype = found.qkv.dtype
    apart = build.node("Reshape", [found.qkv, build.const(flat, "int64", "shape")], flat, dtype)
    whole = build.node("Transpose", [apart], turned, dtype, perm=[0, 2, 1, 3])
    for part in found.parts:
        part.inputs.clear()
    sizes = build.const([heads] * count, "int64", "parts")
    graph.nodes.append(gs.Node("Split", build.name("Split"), {"axis": 1}, [whole, sizes], list(found.parts)))


HEADS_SPLIT = PatternPass(
    "qkv split by heads",
    frozenset({"Split"}),
    match,
    apply,
    lambda context: context.for_tensorrt,
)
