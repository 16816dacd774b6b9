"""Operators that a target lacks, written in ones that it has.

::

    1. LayerNormalization  =>  (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias, in float32
    2. Gelu (exact)        =>  x * 0.5 * (1 + Erf(x / sqrt 2))
    3. Gelu (tanh)         =>  x * 0.5 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, Found, Match, Pass, static_shape


def match_norm(node: gs.Node, context: Context) -> Found:
    """Case 1: normalization over the last axis."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return "the input's shape is not static"
    axis = int(node.attrs.get("axis", -1))
    if axis not in (-1, len(shape) - 1):
        return "it normalizes over more than the last axis"
    if len(node.outputs) > 1 and any(out.outputs for out in node.outputs[1:]):
        return "its mean or deviation is read"
    return {"node": node, "shape": shape}


def apply_norm(graph: gs.Graph, found: Match, context: Context) -> None:
    """Write one LayerNormalization in primitives."""
    build, node, shape = Builder(graph, "norm"), found["node"], found["shape"]
    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    out, dtype = node.outputs[0], np.float32
    node.outputs.clear()
    narrow = [*shape[:-1], 1]
    source_dtype = np.dtype(x.dtype) if x.dtype is not None else np.dtype(np.float32)
    if source_dtype != np.float32:
        x = build.node("Cast", [x], shape, dtype, to=1)
        weight = build.node("Cast", [weight], None, dtype, to=1)
        bias = build.node("Cast", [bias], None, dtype, to=1) if bias is not None else None
    axes = build.const([-1], "int64", "axes")
    mean = build.node("ReduceMean", [x, axes], narrow, dtype, keepdims=1)
    centred = build.node("Sub", [x, mean], shape, dtype)
    squared = build.node("Mul", [centred, centred], shape, dtype)
    variance = build.node("ReduceMean", [squared, axes], narrow, dtype, keepdims=1)
    epsilon = build.const(float(node.attrs.get("epsilon", 1e-5)), dtype, "epsilon")
    deviation = build.node("Sqrt", [build.node("Add", [variance, epsilon], narrow, dtype)], narrow, dtype)
    scaled = build.node("Mul", [build.node("Div", [centred, deviation], shape, dtype), weight], shape, dtype)
    result = build.node("Add", [scaled, bias], shape, dtype) if bias is not None else scaled
    if source_dtype != np.float32:
        build.node("Cast", [result], shape, out.dtype, out, to=10 if source_dtype == np.float16 else 11)
    else:
        last = result.inputs[0]
        last.outputs.clear()
        out.inputs.clear()
        last.outputs.append(out)


def match_gelu(node: gs.Node, context: Context) -> Found:
    """Cases 2 and 3."""
    return {"node": node}


def apply_gelu(graph: gs.Graph, found: Match, context: Context) -> None:
    """Write one Gelu in primitives."""
    build, node = Builder(graph, "gelu"), found["node"]
    x, out = node.inputs[0], node.outputs[0]
    node.outputs.clear()
    shape, dtype = static_shape(x), x.dtype or np.float32

    def mul(tensor: gs.Tensor, factor: float) -> gs.Tensor:
        return build.node("Mul", [tensor, build.const(factor, dtype, "factor")], shape, dtype)

    if node.attrs.get("approximate", "none") == "tanh":
        cube = build.node("Mul", [build.node("Mul", [x, x], shape, dtype), x], shape, dtype)
        inner = mul(build.node("Add", [x, mul(cube, 0.044715)], shape, dtype), math.sqrt(2 / math.pi))
        curve = build.node("Tanh", [inner], shape, dtype)
    else:
        curve = build.node("Erf", [mul(x, 1 / math.sqrt(2))], shape, dtype)
    raised = build.node("Add", [curve, build.const(1.0, dtype, "one")], shape, dtype)
    build.node("Mul", [mul(x, 0.5), raised], shape, out.dtype, out)


LOWER_LAYER_NORM = Pass(
    "LayerNormalization to primitives",
    frozenset({"LayerNormalization"}),
    match_norm,
    apply_norm,
    lambda context: "LayerNormalization" in context.target.lacks or context.target.opset < 17,
)
LOWER_GELU = Pass(
    "Gelu to Erf",
    frozenset({"Gelu"}),
    match_gelu,
    apply_gelu,
    lambda context: "Gelu" in context.target.lacks or context.target.opset < 20,
)
