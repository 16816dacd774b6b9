"""The opset of bfloat16 convolutions: where it is declared, and that the convolution then takes the type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.graph.precision.half import to_half

NAME = "opset of bfloat16 convolutions"
X = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)


def embedding(make_graph: Any, op: str) -> onnx.ModelProto:
    weights = {"w": np.ones((4, 3, 4, 4), np.float32)} if op == "Conv" else {}
    nodes = [helper.make_node(op, ["x", *weights], ["y"], kernel_shape=[4, 4], strides=[4, 4])]
    return make_graph(nodes, {"x": X}, {"y": (np.float32, (1, 4 if weights else 3, 2, 2))}, **weights)


@pytest.mark.parametrize(
    ("target", "precision", "op", "opset"),
    [
        ("openvino", "bf16", "Conv", 22),
        ("openvino", "fp32", "Conv", 20),
        ("openvino", "bf16", "MaxPool", 20),
        ("trt-rtx", "bf16", "Conv", 20),
        ("trt-10.3", "bf16", "Conv", 20),
    ],
)
def test_it_is_declared_where_it_serves(
    target: str, precision: str, op: str, opset: int, make_graph: Any, rewritten: Any
) -> None:
    result, counts = rewritten(embedding(make_graph, op), {"x": X}, target, precision=precision)
    assert result.opset_import[0].version == opset
    assert counts.get(NAME, 0) == (opset == 22)
    kinds = {tensor.name: tensor.data_type for tensor in to_half(result, "bf16", ()).model.graph.initializer}
    assert (onnx.TensorProto.BFLOAT16 in kinds.values()) == (opset == 22)
