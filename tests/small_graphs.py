"""Graphs of one node, one that decides, and one whose numbers half precision cannot hold."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper


def doubler(batch: int | str = 2) -> bytes:
    """Serialized: `logits` is twice `image`, which is [batch, 3] float32."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Add", ["image", "image"], ["logits"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def chooser(batch: int = 2) -> onnx.ModelProto:
    """`logits` is `image`, [batch, 8] float32, times a matrix; `kept_1` are the places of its two greatest values."""
    weights = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)
    kinds = {"image": [batch, 8], "logits": [batch, 5], "kept_1": [batch, 2]}
    types = {"kept_1": TensorProto.INT64}
    values = {
        name: helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
        for name, shape in kinds.items()
    }
    constants = [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.array([2]), "k")]
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["logits"], name="/head"),
        helper.make_node("TopK", ["image", "k"], ["scores", "kept_1"], name="/topk"),
    ]
    graph = helper.make_graph(nodes, "g", [values["image"]], [values["logits"], values["kept_1"]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


def stretched(model: onnx.ModelProto, *factors: float) -> onnx.ModelProto:
    """A traced ViT's MLPs, each with its hidden values times a factor, which the weights behind take back, in place.

    float16 holds the weights before and after, whatever it makes of the values between.
    """
    from vitrim.exporter.graph.precision.qdq import quantizable

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = {name: node for node in model.graph.node for name in node.input}
    nodes, products = {node.name: node for node in model.graph.node}, quantizable(model)
    for factor, first, second in zip(factors, products[2::4], products[3::4], strict=True):
        bias = next(name for name in readers[nodes[first].output[0]].input if name in held)
        for name, by in ((nodes[first].input[1], factor), (bias, factor), (nodes[second].input[1], 1 / factor)):
            values = onnx.numpy_helper.to_array(held[name]) * np.float32(by)
            assert np.abs(values).max() < 65504
            held[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    return model
