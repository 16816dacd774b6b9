"""A scale per token for what an int8 product reads, measured while the graph runs.

::

    x --Q--DQ--MatMul(DQ(W8))--  =>  x --Div(s)--Q(1)--DQ(1)--MatMul(DQ(W8))--Mul(s)--
                                     1.  x --Abs--ReduceMax--Mul(1/127)--Max(tiny)-- s
                                     2.  x --------ReduceMax--Mul(1/239)--Max(lowest/16)-- s

One scale for all tokens wastes most of the 8 bits where a few tokens are large. `s` is measured, so nothing clips and
no image of a batch changes another's answer.

1. Unsigned with 128 as zero: onnxruntime's product of two signed numbers is many times slower on x86.
2. Behind a Gelu nothing is below -0.17: with 16 as zero, twice as many steps are left for what is above.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.targets import get_target
from ..passes.base import Builder, Context, PatternPass, constant, producer, static_shape
from ..shapes import with_shapes
from ..surgery import export_graph, import_graph

_LARGEST, _ZERO = 127, 128
_ONE_SIDED = 16  # the zero point of what is hardly ever negative
_TINY = 1e-12  # a row of zeros has a scale, too

# (builder, quantized activation, node that dequantizes the weight, scale, zero point) -> what the product makes
Product = Callable[[Builder, gs.Tensor, gs.Node, gs.Tensor, gs.Tensor], gs.Tensor]


@dataclass(frozen=True)
class Match:
    """A product of two dequantized values, the second a weight.

    Attributes:
        node: the MatMul.
        quantize: the node that quantizes its activation.
        weight: the node that dequantizes its weight.
        columns: of the weight.
    """

    node: gs.Node
    quantize: gs.Node
    weight: gs.Node
    columns: int


def match(node: gs.Node, context: Context) -> Match | str | None:
    """A product of two dequantized values, the second a weight."""
    activation, weight = (producer(tensor, "DequantizeLinear") for tensor in node.inputs)
    if activation is None or weight is None:
        return None
    quantize, values = producer(activation.inputs[0], "QuantizeLinear"), constant(weight.inputs[0])
    if quantize is None or values is None:
        return "it is no weight behind a scale, or its activation comes quantized from elsewhere"
    return Match(node, quantize, weight, values.shape[1])


def apply_token(graph: gs.Graph, found: Match, context: Context, product: Product, lowest: float | None = None) -> None:
    """Case 1, and case 2 where the lowest value is known and near 0."""
    node, weight, x = found.node, found.weight, found.quantize.inputs[0]
    build, out = Builder(graph, "int8"), node.outputs[0]
    node.outputs.clear()
    shape, float32 = static_shape(x) or [], np.float32
    row = [*shape[:-1], 1]
    one_sided = lowest is not None
    steps, point = (255 - _ONE_SIDED, _ONE_SIDED) if one_sided else (_LARGEST, _ZERO)
    magnitude = x if one_sided else build.node("Abs", [x], shape, float32)
    if context.opset < 18:
        largest = build.node("ReduceMax", [magnitude], row, float32, axes=[-1], keepdims=1)
    else:
        largest = build.node("ReduceMax", [magnitude, build.const([-1], "int64", "axes")], row, float32, keepdims=1)
    share = build.node("Mul", [largest, build.const(1 / steps, float32)], row, float32)
    least = _TINY if lowest is None else max(-lowest / _ONE_SIDED, _TINY)  # what is below zero has its place, too
    scale = build.node("Max", [share, build.const(least, float32)], row, float32)
    whole = build.node("Div", [x, scale], shape, float32)
    one, zero = build.const(1.0, float32, "scale"), build.const(point, np.uint8, "zero")
    quantized = build.node("QuantizeLinear", [whole, one, zero], shape, np.uint8)
    made = product(build, quantized, weight, one, zero)
    made.shape = static_shape(out)
    build.node("Mul", [made, scale], static_shape(out), float32, out)


def with_token_scales(
    model: onnx.ModelProto, products: Collection[str], lowest: Mapping[str, float] | None = None
) -> onnx.ModelProto:
    """Some Q/DQ products of a graph with a scale per token, still as Q/DQ pairs.

    Args:
        model: with unsigned pairs; it is not changed.
        products: their names, which they keep.
        lowest: of those whose activations are hardly ever negative, the lowest value (case 2).

    Returns:
        the model with inferred shapes.
    """
    graph = import_graph(model)

    def chosen(node: gs.Node, context: Context) -> Match | str | None:
        return match(node, context) if node.name in products else None

    def apply(graph: gs.Graph, found: Match, context: Context) -> None:
        def product(build: Builder, x: gs.Tensor, weight: gs.Node, one: gs.Tensor, zero: gs.Tensor) -> gs.Tensor:
            made = gs.Variable(build.name("matmul"), dtype=np.float32)
            back = build.node("DequantizeLinear", [x, one, zero], static_shape(x), np.float32)
            found.node.inputs, found.node.outputs = [back, weight.outputs[0]], [made]
            return made

        apply_token(graph, found, context, product, (lowest or {}).get(found.node.name))

    rewrite = PatternPass("a scale per token", frozenset({"MatMul"}), chosen, apply)
    rewrite.rewrite(graph, Context(get_target("openvino")))
    return with_shapes(export_graph(graph, model))
