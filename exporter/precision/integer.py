"""Q/DQ around a product as one integer product of onnxruntime, for its CPU provider.

::

    x --Q--DQ--MatMul(DQ(W8))--Add(b)--  =>  x --Q--MatMulIntegerToFloat(W8; scales, zero point, b)--

onnxruntime 1.31 would find this itself, but joins MatMul and Add into a Gemm first, for which it has no such form, and then
computes in float32 from numbers that it has quantized and back: slower than no int8 at all (measured: 0.67 of dense).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs

from ..passes.base import Context, Found, Match, Names, Pass, constant, only_consumer, producer

DOMAIN = "com.microsoft"


def match(node: gs.Node, context: Context) -> Found:
    """A product of two dequantized values, the second a weight."""
    activation, weight = (producer(tensor, "DequantizeLinear") for tensor in node.inputs)
    if activation is None or weight is None:
        return None
    quantize = producer(activation.inputs[0], "QuantizeLinear")
    if quantize is None or constant(weight.inputs[0]) is None:
        return "it is no weight behind a scale, or its activation comes quantized from elsewhere"
    add = only_consumer(node.outputs[0])
    bias = None
    if add is not None and add.op == "Add" and node.outputs[0].name not in context.outputs:
        other = next(tensor for tensor in add.inputs if tensor is not node.outputs[0])
        values = constant(other)
        if values is not None and values.ndim == 1 and len(values) == constant(weight.inputs[0]).shape[1]:  # type: ignore[union-attr]
            bias = other
    return {"node": node, "quantize": quantize, "weight": weight, "add": add if bias is not None else None, "bias": bias}


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Write one integer product."""
    node, quantize, weight = found["node"], found["quantize"], found["weight"]
    last = found["add"] or node
    out = last.outputs[0]
    last.outputs.clear()
    # In: A, B, scale of A, scale of B, zero point of A, zero point of B, bias. Weights are symmetric.
    inputs = [quantize.outputs[0], weight.inputs[0], quantize.inputs[1], weight.inputs[1], quantize.inputs[2]]
    if found["bias"] is not None:
        inputs += [gs.Variable.empty(), found["bias"]]
    name = Names(graph, "int8")(node.name)
    graph.nodes.append(gs.Node("MatMulIntegerToFloat", name, {}, inputs, [out], domain=DOMAIN))


INTEGER_PRODUCTS = Pass("Q/DQ to integer products", frozenset({"MatMul"}), match, apply)


def to_integer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every Q/DQ product of a graph as an integer product; the graph is for onnxruntime only then."""
    from ..passes.pipeline import copy_of, export_graph
    from ..targets import get_target

    graph = gs.import_onnx(copy_of(model))
    INTEGER_PRODUCTS.run(graph, Context(get_target("ort-cpu")))
    written = export_graph(graph, model)
    if all(entry.domain != DOMAIN for entry in written.opset_import):
        written.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    assert np.all([len(node.output) for node in written.graph.node])
    return written
