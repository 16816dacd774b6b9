"""Graphs of one node."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def doubler(batch: int | str = 2) -> bytes:
    """Serialized: `logits` is twice `image`, which is [batch, 3] float32."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["logits"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
