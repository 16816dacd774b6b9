"""QuantizeLinear and DequantizeLinear as older opsets know them: in float32, their type told by the zero point.

::

    x(half) --QuantizeLinear(scale half)--     =>   x --Cast(float)--QuantizeLinear(scale float)--
    --DequantizeLinear(scale half)-- y(half)   =>   --DequantizeLinear(scale float)--Cast(half)-- y
    x --QuantizeLinear(scale; output_dtype)--  =>   x --QuantizeLinear(scale, zero point 0 of that type)--

1. before opset 19 both know float32 only;
2. before opset 21 there is no `output_dtype`, and without a zero point the result is uint8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx.helper
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, numpy_dtype, onnx_type, static_shape


@dataclass(frozen=True)
class Match:
    """One half of a pair that an older opset does not know.

    Attributes:
        node: it.
        half: type of its scale where that is not float32 (case 1), else None.
        kind: ONNX's number of the type that `output_dtype` names (case 2), 0 for none.
    """

    node: gs.Node
    half: np.dtype | None
    kind: int


_HALF_SINCE, _TYPE_SINCE = 19, 21


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 and 2."""
    dtype, older = numpy_dtype(node.inputs[1]), context.target.opset < _HALF_SINCE
    if older and dtype is None:
        return "its scale is neither float32 nor float16"
    half = dtype if older and dtype == np.float16 else None
    kind = int(node.attrs.get("output_dtype", 0)) if context.target.opset < _TYPE_SINCE else 0
    return Match(node, half, kind) if half is not None or kind else None


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Rewrite one of them in place."""
    build, node = Builder(graph, "quantize"), found.node
    if found.kind:
        _by_zero_point(build, node, found.kind)
    if found.half is None:
        return
    node.inputs[1] = _single(build, node.inputs[1])
    if node.op == "QuantizeLinear":
        node.inputs[0] = _single(build, node.inputs[0])
        return
    out = node.outputs[0]
    node.outputs[0] = raw = gs.Variable(build.name("single"), dtype=np.float32, shape=out.shape)
    build.node("Cast", [raw], static_shape(out), found.half, out, to=onnx_type(found.half))


def _by_zero_point(build: Builder, node: gs.Node, kind: int) -> None:
    del node.attrs["output_dtype"]
    told = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    if node.op == "DequantizeLinear" or told:  # the scale or the zero point says the same
        return
    shape = static_shape(node.inputs[1]) or []
    zero = build.const(np.zeros(shape), onnx.helper.tensor_dtype_to_np_dtype(kind), "zero")
    node.inputs = [*node.inputs[:2], zero]


def _single(build: Builder, tensor: gs.Tensor) -> gs.Tensor:
    """A half as float32: a constant anew, anything else through a Cast."""
    if numpy_dtype(tensor) == np.float32:
        return tensor
    value = constant(tensor)
    if value is not None:
        return build.const(value, np.float32, "single")
    return build.node("Cast", [tensor], static_shape(tensor), np.float32, to=onnx_type(np.float32))


OLD_QUANTIZATION = PatternPass(
    "quantization in float32",
    frozenset({"QuantizeLinear", "DequantizeLinear"}),
    match,
    apply,
    lambda context: context.target.opset < _TYPE_SINCE,
)
