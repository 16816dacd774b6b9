"""onnxruntime's Attention straight from the projection, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, export_module, small_vit

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.pruning.vit import PrunedViT


@pytest.mark.slow
def test_fused_attention_takes_every_block_and_hands_stages_their_matrix(
    traced: onnx.ModelProto, image: Any, counts: Any
) -> None:
    rewritten, reports = rewrite(traced, get_target("ort-cpu"), image(), fused_attention=True)
    modes = [
        next((entry.i for entry in node.attribute if entry.name == "qk_matmul_output_mode"), None)
        for node in rewritten.graph.node
        if node.op_type == "Attention"
    ]
    assert modes == [None, 3, 3, None]  # the matrix after the softmax
    table = operator_table(rewritten)
    assert "Softmax" not in table
    # Of the patch embedding, and of keys that are compared, once for duplicates and once for who is handed their sizes:
    # keys are averaged before any transpose.
    assert (table["Transpose"], counts(reports)["mean before the transpose"]) == (1 + 2 * 2, 2)
    report = next(report for report in reports if report.name == "fused Attention")
    assert report.skipped == []
    assert rewritten.opset_import[0].version == 23
    assert report.max_abs is not None
    assert report.max_abs < 1e-4


class Inquisitive(torch.nn.Module):
    """An attention whose every part is read a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = small_vit().blocks[0].attn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.attn.qkv(x).reshape(batch, tokens, 3, 3, width // 3).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        out = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        read = q.amax((1, 3)) + k.mean(dim=(1, 3)) + v.amin((1, 3)) + v.mean((2, 3)).sum(1, keepdim=True)
        return out + (weights.amax((1, 2)) + read).unsqueeze(-1)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_fused_attention_serves_readers_of_queries_keys_and_values(batch: int, counts: Any) -> None:
    x = torch.randn(batch, 17, 48, generator=torch.Generator().manual_seed(0))
    model = Inquisitive()
    graph = export_module(model, x)
    rewritten, reports = rewrite(graph, get_target("ort-cpu"), {"x": x.numpy()}, fused_attention=True)
    assert operator_table(rewritten)["Attention"] == 1
    assert counts(reports)["mean before the transpose"] >= 1
    expected = model(x).detach().numpy()
    np.testing.assert_allclose(run_once(rewritten, {"x": x.numpy()})["y"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_queries_of_some_tokens_come_from_a_projection_of_their_own(batch: int, counts: Any) -> None:
    """A stage that chooses before its tokens ask, and a last block that the class token alone asks."""
    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 9}, "evit"))
    image = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    traced = trace(pruned, batch)
    weights = {tuple(tensor.dims) for tensor in traced.graph.initializer if len(tensor.dims) == 2}
    assert {(48, 96), (48, 48)} <= weights  # cut apart when traced
    rewritten, _ = rewrite(traced, get_target("ort-cpu"), {"image": image.numpy()}, fused_attention=True)
    table = operator_table(rewritten)
    assert (table["Attention"], table["Softmax"]) == (4, 1)  # of the row that is chosen by
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in rewritten.graph.value_info
    }
    asking = [shapes[node.input[0]][1] for node in rewritten.graph.node if node.op_type == "Attention"]
    assert asking == [17, 9, 9, 1]
    expected = pruned(image).detach().numpy()
    np.testing.assert_allclose(run_once(rewritten, {"image": image.numpy()})["logits"], expected, atol=2e-5)


@pytest.mark.slow
def test_fused_attention_leaves_qk_norm_with_the_reason(image: Any) -> None:
    model = small_vit(qk_norm=True)
    graph = trace(PrunedViT(model, budget_for(model, {})), 1)
    rewritten, reports = rewrite(graph, get_target("ort-cpu"), image(), fused_attention=True)
    assert "Attention" not in operator_table(rewritten)
    assert "QK-norm" in next(report for report in reports if report.name == "fused Attention").skipped[0][1]
