"""Q/DQ around a product as one integer product of onnxruntime, for its CPU provider.

::

    x --Q--DQ--MatMul(DQ(W8))--Add(b)--  =>  x --Q--MatMulIntegerToFloat(W8; scales, zero point, b)--
    the same with a scale per token      =>  x --Div(s)--Q--MatMulIntegerToFloat(W8)--Mul(s)--Add(b)--

onnxruntime 1.31 would find the first itself, but joins MatMul and Add into a Gemm first, for which it has no such form,
and then computes in float32 from what it has quantized and back: slower than no int8 at all (measured: 0.67 of the
dense graph's speed). A scale per token is in `token_scales.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.targets import get_target
from ..passes.base import Builder, Context, PatternPass, constant, only_consumer
from ..surgery import export_graph, import_graph
from .token_scales import Match, apply_token, match

DOMAIN = "com.microsoft"


def apply_static(graph: gs.Graph, found: Match, context: Context) -> None:
    """One scale for the whole activation."""
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
        model: of `qdq.with_qdq` with its scheme `onnxruntime`; it is not changed.
        per_token: names of the products whose activations get a scale per token.
        lowest: of those whose activations are hardly ever negative, the lowest value (see `token_scales`).
    """
    graph = import_graph(model)

    def apply(graph: gs.Graph, found: Match, context: Context) -> None:
        def product(build: Builder, x: gs.Tensor, weight: gs.Node, one: gs.Tensor, zero: gs.Tensor) -> gs.Tensor:
            return _product(build, x, weight, one, zero, None, None)

        name = found.node.name
        if name in per_token:
            apply_token(graph, found, context, product, (lowest or {}).get(name))
        else:
            apply_static(graph, found, context)

    rewrite = PatternPass("Q/DQ to integer products", frozenset({"MatMul"}), match, apply)
    rewrite.rewrite(graph, Context(get_target("ort-cpu")))
    return export_graph(graph, model)
