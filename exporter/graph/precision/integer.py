"""Q/DQ around a product as one integer product of onnxruntime, for its CPU provider.

::

    1. x --Q--DQ--MatMul(DQ(W8))--Add(b)--  =>  x --Q--MatMulIntegerToFloat(W8; scales, zero point, b)--
    2. the same with a scale per token        =>  x --Div(s)--Q--MatMulIntegerToFloat(W8)--Mul(s)--Add(b)--
                                                x --Abs--ReduceMax--Mul(1/127)--Max(tiny)-- s
    3. ... of what is hardly ever negative      x ---------ReduceMax--Mul(1/239)--Max(lowest/16)-- s

1. onnxruntime 1.31 would find this itself, but joins MatMul and Add into a Gemm first, for which it has no such form,
   and then computes in float32 from what it has quantized and back: slower than no int8 at all (measured: 0.67 of the
   dense graph's speed).
2. One scale for all tokens wastes most of the 8 bits where a few tokens are large. `s` is measured while the graph
   runs, so nothing clips and no image of a batch changes another's answer. Unsigned with 128 as zero: onnxruntime's
   product of two signed numbers is many times slower on x86.
3. Behind a Gelu nothing is below -0.17: with 16 as zero, twice as many steps are left for what is above.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.targets import get_target
from ..passes.base import Builder, Context, PatternPass, constant, only_consumer, producer, static_shape
from ..surgery import export_graph, import_graph

DOMAIN = "com.microsoft"
_LARGEST, _ZERO = 127, 128
_ONE_SIDED = 16  # the zero point of what is hardly ever negative
_TINY = 1e-12  # a row of zeros has a scale, too


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


def apply_static(graph: gs.Graph, found: Match, context: Context) -> None:
    """Case 1."""
    node, quantize, weight = found.node, found.quantize, found.weight
    last, bias = node, None
    add = only_consumer(node.outputs[0])
    if add is not None and add.op == "Add" and node.outputs[0].name not in context.outputs:
        other = next(tensor for tensor in add.inputs if tensor is not node.outputs[0])
        values = constant(other)
        if values is not None and values.shape == (found.columns,):
            last, bias = add, other
    out = last.outputs[0]
    last.outputs.clear()
    scale, zero = quantize.inputs[1], quantize.inputs[2]
    _product(Builder(graph, "int8"), quantize.outputs[0], weight, scale, zero, bias, out)


def apply_token(graph: gs.Graph, found: Match, context: Context, lowest: float | None = None) -> None:
    """Cases 2 and 3; the latter where the lowest value is known and near 0."""
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
    product = _product(build, quantized, weight, one, zero, None, None)
    product.shape = static_shape(out)
    build.node("Mul", [product, scale], static_shape(out), float32, out)


def _product(
    build: Builder,
    x: gs.Tensor,
    weight: gs.Node,
    scale: gs.Tensor,
    zero: gs.Tensor,
    bias: gs.Tensor | None,
    out: gs.Tensor | None,
) -> gs.Tensor:
    """In: A, B, scale of A, scale of B, zero point of A, of B (weights are symmetric), bias."""
    inputs = [x, weight.inputs[0], scale, weight.inputs[1], zero]
    if bias is not None:
        inputs += [gs.Variable.empty(), bias]
    result = build.node("MatMulIntegerToFloat", inputs, None, np.float32, out)
    result.inputs[0].domain = DOMAIN
    return result


def to_integer(
    model: onnx.ModelProto, per_token: Collection[str] = (), lowest: Mapping[str, float] | None = None
) -> onnx.ModelProto:
    """Every Q/DQ product of a graph as an integer product; only onnxruntime takes the graph then.

    Args:
        model: of `quantize.with_qdq` with its scheme `onnxruntime`; it is not changed.
        per_token: names of the products whose activations get a scale per token.
        lowest: of those whose activations are hardly ever negative, the lowest value (case 3).
    """
    graph, context = import_graph(model), Context(get_target("ort-cpu"))

    def apply(graph: gs.Graph, found: Match, context: Context) -> None:
        name = found.node.name
        if name in per_token:
            apply_token(graph, found, context, (lowest or {}).get(name))
        else:
            apply_static(graph, found, context)

    PatternPass("Q/DQ to integer products", frozenset({"MatMul"}), match, apply).rewrite(graph, context)
    return export_graph(graph, model)
