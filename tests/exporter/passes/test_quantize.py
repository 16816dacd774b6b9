"""Quantization as opset 17 knows it: float32 scales, the type told by the zero point."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.lint import lint, operator_table
from vitrim.exporter.targets import get_target

node = helper.make_node
PAIR = {"QuantizeLinear", "DequantizeLinear"}
RNG = np.random.default_rng(0)


def half_graph(make_graph: Any) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """x(half) through a pair, times a weight through its pair, a scale a channel."""
    x = RNG.standard_normal((1, 5, 8)).astype(np.float16)
    weights = {
        "w": RNG.standard_normal((8, 6)).astype(np.float16),
        "s": np.array(0.03, np.float16),
        "z": np.array(0, np.int8),
        "ws": np.full(6, 0.02, np.float16),
        "wz": np.zeros(6, np.int8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=1),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=1),
        node("MatMul", ["d", "wd"], ["y"]),
    ]
    return make_graph(nodes, {"x": x}, {"y": (np.float16, (1, 5, 6))}, 20, **weights), {"x": x}


@pytest.mark.parametrize("target", ["trt-8.5", "trt-8.6"])
def test_half_scales_become_single(target: str, make_graph: Any, rewritten: Any) -> None:
    model, feeds = half_graph(make_graph)
    result, counts = rewritten(model, feeds, target, atol=1e-2)
    assert counts["quantization in float32"] == 4
    assert result.opset_import[0].version == 17
    kinds = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    pairs = [
        each for each in result.graph.node if each.op_type.endswith("quantizeLinear") or "Quantize" in each.op_type
    ]
    assert len(pairs) == 4
    assert {kinds[each.input[1]] for each in pairs} == {onnx.TensorProto.FLOAT}
    assert operator_table(result)["Cast"] == 3  # x, what its pair makes, what the weight's pair makes
    assert [f for f in lint(result, get_target(target)) if f.severity == "error"] == []


@pytest.mark.parametrize("target", ["trt-10.3", "trt-11", "ort-cpu"])
def test_newer_opsets_keep_half_scales(target: str, make_graph: Any, rewritten: Any) -> None:
    model, feeds = half_graph(make_graph)
    result, counts = rewritten(model, feeds, target, atol=1e-2)
    assert "quantization in float32" not in counts
    assert "Cast" not in operator_table(result)


@pytest.mark.parametrize("target", ["trt-8.5", "trt-10.3"])
def test_the_output_type_becomes_a_zero_point(target: str, make_graph: Any, rewritten: Any) -> None:
    x = RNG.standard_normal((1, 8)).astype(np.float32)
    nodes = [
        node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=onnx.TensorProto.INT8),
        node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, x.shape)}, 21, s=np.array(0.05, np.float32))
    result, counts = rewritten(model, {"x": x}, target)
    assert counts["quantization in float32"] == 1
    assert len(result.graph.node[0].input) == 3
    assert lint(result, get_target(target)) == []
