"""A graph of any number of tokens, made one of a certain number: static as the passes want it."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx import TensorProto, helper

from .simplify import simplify
from .surgery import copy_of
from .trace import quiet, strip_exporter_notes


def with_tokens(model: onnx.ModelProto, tokens: int) -> onnx.ModelProto:
    """A graph that `trace_free_into` has written, for a certain number of tokens.

    Args:
        model: [batch, any, width] to the same; it is not changed.
        tokens: how many; what is computed of the free dimension is constant then, and folded away.
    """
    fixed = copy_of(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        batch, _, width = value.type.tensor_type.shape.dim
        shape = [batch.dim_value, tokens, width.dim_value]
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
    folded = onnx_ir.from_proto(fixed)
    with quiet():
        simplify(folded)
    found = onnx_ir.to_proto(folded)
    strip_exporter_notes(found)
    return found
