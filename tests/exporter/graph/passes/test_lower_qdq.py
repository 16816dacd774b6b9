"""Quantization as opset 17 knows it: float32 scales, the type told by the zero point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import save
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.pruning.vit import PrunedViT

node = helper.make_node
PAIR = {"QuantizeLinear", "DequantizeLinear"}
RNG = np.random.default_rng(0)


def half_graph(make_graph: Any) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """x(half) through a pair, times a weight through its pair, a scale per channel."""
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


class Noise(CalibrationDataReader):
    """Three images."""

    def __init__(self) -> None:
        self.left = iter(RNG.standard_normal((3, 1, 3, 64, 64)).astype(np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {"image": image}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A pruned model as onnxruntime's own tool quantizes one for TensorRT: symmetric, pairs on weights too."""
    model, folder = small_vit(), tmp_path_factory.mktemp("quantized")
    save(trace(PrunedViT(model, budget_for(model, {1: 11, 2: 6}), ("logits", "kept")), 1), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Noise(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        extra_options={"ActivationSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False},
    )
    return onnx.load(Path(folder / "int8.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5", "trt-8.6", "trt-10.3", "trt-11"])
def test_a_quantized_model_goes_through_the_passes(quantized: onnx.ModelProto, target: str) -> None:
    feeds = {"image": RNG.standard_normal((1, 3, 64, 64)).astype(np.float32)}
    result, _ = rewrite(quantized, get_target(target))
    assert [str(finding) for finding in lint(result, get_target(target))] == []
    before, after = operator_table(quantized), operator_table(result)
    assert before["QuantizeLinear"] > 40
    assert {op: after[op] for op in PAIR} == {op: before[op] for op in PAIR}  # none is folded into the weights
    old, new = run_once(quantized, feeds), run_once(result, feeds)
    step = np.abs(old["logits"]).max() / 127  # a value at the edge of two steps may go either way
    np.testing.assert_allclose(new["logits"], old["logits"], rtol=0, atol=step)
    np.testing.assert_array_equal(new["kept_2"], old["kept_2"])
