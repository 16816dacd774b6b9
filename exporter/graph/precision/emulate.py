"""A half-precision graph in float32 that rounds wherever the half one would: for machines that cannot compute in it.

::

    x16 --MatMul(W16)--Add(b16)  =>  x --MatMul(W)--[16]--Add(b)--[16]      [16]: Cast to half, Cast back

onnxruntime's CPU provider has next to no kernels in half precision: it takes fp16 through casts to float32, of which it
drops as many as it can, and refuses bf16. Here every value of a half type is rounded once, as it is written; sums are
kept in float32, as GPUs do.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
from onnx import TensorProto, numpy_helper

from ..shapes import with_shapes
from ..surgery import copy_of

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph that rounds like a half-precision one.

    Args:
        model: of `half.to_half`, with inferred shapes; it is not changed.

    Returns:
        the same inputs and outputs, those of a half type in float32.
    """
    written = copy_of(model)
    graph = written.graph
    halves: dict[str, int] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type in _HALVES:
            halves[value.name] = kind.elem_type
            kind.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
        for index, name in enumerate(node.output):
            if name in halves:
                node.output[index] = f"{name}/exact"
                nodes.append(_cast(f"{name}/exact", f"{name}/half", halves[name]))
                nodes.append(_cast(f"{name}/half", name, TensorProto.FLOAT))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return with_shapes(written)


def _cast(source: str, out: str, to: int) -> onnx.NodeProto:
    node = onnx.helper.make_node("Cast", [source], [out], f"{out}/cast")
    node.attribute.append(onnx.helper.make_attribute("to", int(to)))
    return node
