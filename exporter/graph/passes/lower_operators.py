"""Operators that a target lacks, written in ones that it has.

::

    1. LayerNormalization  =>  (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias

          x --+------------------Sub--+------------------------------Div--Mul(weight)--Add(bias)--
              +--ReduceMean-----/     +--Mul--ReduceMean--Add--Sqrt--/

    2. Gelu (exact)        =>  x * 0.5 * (1 + Erf(x / sqrt 2))
    3. Gelu (tanh)         =>  x * 0.5 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
    4. CumSum (last axis)  =>  x @ triangle of ones; TensorRT has it, but runs it as a loop
    5. RMSNormalization    =>  x / sqrt(mean(x^2) + eps) * weight, as case 1 without the mean

Half precision is normalized in float32 (cases 1 and 5 cast there and back), double in double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, numpy_dtype, onnx_type, scalar, static_shape

NORM = "norm"  # begins the names of what is left of a normalization


@dataclass(frozen=True)
class Norm:
    """A normalization.

    Attributes:
        node: it.
        shape: of its input.
        axis: the first that it normalizes over, counted from the front.
        dtype: of its input.
    """

    node: gs.Node
    shape: list[int]
    axis: int
    dtype: np.dtype


@dataclass(frozen=True)
class RunningSum:
    """A running sum along the last axis.

    Attributes:
        node: the CumSum.
        shape: of its input.
        dtype: of its input.
    """

    node: gs.Node
    shape: list[int]
    dtype: np.dtype


def match_norm(node: gs.Node, context: Context) -> Norm | str:
    """Cases 1 and 5."""
    shape, dtype = static_shape(node.inputs[0]), numpy_dtype(node.inputs[0])
    if shape is None:
        return "the input's shape is not static"
    if dtype is None or dtype.kind != "f":
        return "its type is none of float16, float32 and float64"
    if any(out.outputs or out.name in context.outputs for out in node.outputs[1:]):
        return "its mean or deviation is read"
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    return Norm(node, shape, axis, dtype)


def apply_norm(graph: gs.Graph, found: Norm, context: Context) -> None:
    """Write one normalization in primitives."""
    build, node, shape = Builder(graph, NORM), found.node, found.shape
    x, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    out, given = node.outputs[0], found.dtype
    dtype = np.dtype(np.float64) if given == np.float64 else np.dtype(np.float32)
    node.outputs.clear()
    axes = list(range(found.axis, len(shape)))
    narrow = [1 if position in axes else size for position, size in enumerate(shape)]

    def mean_of(tensor: gs.Tensor) -> gs.Tensor:
        if context.opset < 18:
            return build.node("ReduceMean", [tensor], narrow, dtype, axes=axes, keepdims=1)
        return build.node("ReduceMean", [tensor, build.const(axes, "int64", "axes")], narrow, dtype, keepdims=1)

    def wide(tensor: gs.Tensor) -> gs.Tensor:
        return build.node("Cast", [tensor], static_shape(tensor), dtype, to=onnx_type(dtype))

    if given != dtype:
        x, weight, bias = wide(x), wide(weight), wide(bias) if bias is not None else None
    centred = x if node.op == "RMSNormalization" else build.node("Sub", [x, mean_of(x)], shape, dtype)
    variance = mean_of(build.node("Mul", [centred, centred], shape, dtype))
    epsilon = build.const(float(node.attrs.get("epsilon", 1e-5)), dtype, "epsilon")
    deviation = build.node("Sqrt", [build.node("Add", [variance, epsilon], narrow, dtype)], narrow, dtype)
    steps: list[tuple[str, list[gs.Tensor], dict[str, int]]] = [("Div", [deviation], {}), ("Mul", [weight], {})]
    if bias is not None:
        steps.append(("Add", [bias], {}))
    if given != dtype:
        steps.append(("Cast", [], {"to": onnx_type(given)}))
    value = centred
    for position, (op, others, attrs) in enumerate(steps):
        last = out if position == len(steps) - 1 else None
        value = build.node(op, [value, *others], shape, given if last is out else dtype, last, **attrs)


def match_gelu(node: gs.Node, context: Context) -> gs.Node | str:
    """Cases 2 and 3."""
    dtype = numpy_dtype(node.inputs[0])
    return node if dtype is not None else "its type has no constants here (bfloat16)"


def apply_gelu(graph: gs.Graph, node: gs.Node, context: Context) -> None:
    """Write one Gelu in primitives."""
    build = Builder(graph, "gelu")
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


def match_running_sum(node: gs.Node, context: Context) -> RunningSum | str:
    """Case 4."""
    shape, dtype, axis = static_shape(node.inputs[0]), numpy_dtype(node.inputs[0]), scalar(node.inputs[1])
    if shape is None or dtype is None or dtype.kind != "f" or axis is None:
        return "its shape, type or axis is not known"
    if int(axis) % len(shape) != len(shape) - 1 or len(shape) < 2:
        return "it does not run along the last axis of a matrix"
    if node.attrs.get("exclusive", 0) or node.attrs.get("reverse", 0):
        return "it is exclusive or reversed"
    return RunningSum(node, shape, dtype)


def apply_running_sum(graph: gs.Graph, found: RunningSum, context: Context) -> None:
    """Write one CumSum as a product."""
    build, node, size = Builder(graph, "cumsum"), found.node, found.shape[-1]
    x, out = node.inputs[0], node.outputs[0]
    node.outputs.clear()
    triangle = build.const(np.triu(np.ones((size, size))), found.dtype, "triangle")
    build.node("MatMul", [x, triangle], found.shape, out.dtype, out)


LOWER_CUMSUM = PatternPass(
    "CumSum to a product",
    frozenset({"CumSum"}),
    match_running_sum,
    apply_running_sum,
    lambda context: context.for_tensorrt,
)
LOWER_LAYER_NORM = PatternPass(
    "LayerNormalization to primitives",
    frozenset({"LayerNormalization"}),
    match_norm,
    apply_norm,
    lambda context: "LayerNormalization" in context.target.lacks or context.target.opset < 17,
)
LOWER_RMS_NORM = PatternPass(
    "RMSNormalization to primitives",
    frozenset({"RMSNormalization"}),
    match_norm,
    apply_norm,
    lambda context: "RMSNormalization" in context.target.lacks or context.target.opset < 23,
)
LOWER_GELU = PatternPass(
    "Gelu to Erf",
    frozenset({"Gelu"}),
    match_gelu,
    apply_gelu,
    lambda context: "Gelu" in context.target.lacks or context.target.opset < 20,
)
