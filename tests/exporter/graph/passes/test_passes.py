"""Graph passes: each on a graph that really needs it, held against the graph before in numbers and operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, export_module, small_vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import ParityError, UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes import table as pipeline
from vitrim.exporter.graph.passes.base import Pass
from vitrim.exporter.graph.passes.table import PASSES, hold_against, rewrite, run_once
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.vit import PrunedViT


def counts(reports: list[Any]) -> dict[str, int]:
    return {report.name: report.count for report in reports if report.count}


def image_for(batch: int = 1, size: int = 64) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)}


class Gathered(torch.nn.Module):
    """Tokens picked by score, in one of the forms that people write."""

    def __init__(self, form: str, keep: int) -> None:
        super().__init__()
        self.form, self.keep = form, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x[:, 1:]
        index = patches.sum(-1).topk(self.keep, dim=1).indices
        expanded = index.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        if self.form == "prefix":
            return torch.cat([x[:, :1], patches.gather(1, expanded)], dim=1)
        return patches.gather(1, expanded)


@pytest.mark.parametrize("batch", [1, 3])
def test_gather_reads_each_index_once(batch: int) -> None:
    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(0))
    model = export_module(Gathered("plain", 4), x)
    rewritten, reports = rewrite(model, get_target("ort-cpu"), {"x": x.numpy()})
    before, after = operator_table(model), operator_table(rewritten)
    assert before["GatherElements"] == 1
    assert "GatherElements" not in after
    assert "Expand" not in after
    assert counts(reports)["gather without expanded indices"] == 1
    expected = Gathered("plain", 4)(x).numpy()
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_prefix_tokens_move_into_the_index(batch: int) -> None:
    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(1))
    model = export_module(Gathered("prefix", 4), x)
    rewritten, reports = rewrite(model, get_target("ort-cpu"), {"x": x.numpy()})
    assert counts(reports)["prefix tokens inside the index"] == 1
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], Gathered("prefix", 4)(x).numpy())
    concats = [node for node in rewritten.graph.node if node.op_type == "Concat"]
    assert all("x" not in node.input for node in concats)


class Merged(torch.nn.Module):
    """Tokens added onto others, in one of the forms that people write."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        source, target = x[:, :6], x[:, 6:]
        index = (source @ target.transpose(1, 2)).argmax(-1)
        expanded = index.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        if self.form == "scatter_add":
            return target.scatter_add(1, expanded, source)
        if self.form == "scatter_reduce":
            return target.scatter_reduce(1, expanded, source, "sum", include_self=True)
        if self.form == "mean":
            return target.scatter_reduce(1, expanded, source, "amax", include_self=True)
        rows = torch.arange(x.shape[0]).unsqueeze(1).expand(-1, 6)
        return target.index_put((rows, index), source, accumulate=True)


@pytest.mark.parametrize("form", ["scatter_add", "scatter_reduce", "index_put"])
@pytest.mark.parametrize("batch", [1, 3])
def test_merging_survives_without_scatter_and_with_repeated_indices(form: str, batch: int) -> None:
    x = torch.randn(batch, 9, 5, generator=torch.Generator().manual_seed(2))
    index = (x[:, :6] @ x[:, 6:].transpose(1, 2)).argmax(-1)
    assert all(len(set(row.tolist())) < 6 for row in index)  # several sources share a target
    model = export_module(Merged(form), x)
    assert any(op.startswith("Scatter") for op in operator_table(model))
    rewritten, reports = rewrite(model, get_target("trt-8.5"), {"x": x.numpy()})
    assert counts(reports)["merge without scatter"] == 1
    assert not any(op.startswith("Scatter") for op in operator_table(rewritten))
    np.testing.assert_allclose(run_once(rewritten, {"x": x.numpy()})["y"], Merged(form)(x).numpy(), atol=1e-6)


def test_a_scatter_that_is_no_sum_is_refused_by_name() -> None:
    x = torch.randn(1, 9, 5)
    with pytest.raises(
        UnsupportedError, match=r"node .*Scatter.* cannot be written without a scatter: reduction is 'max'"
    ):
        rewrite(export_module(Merged("mean"), x), get_target("ort-cpu"))


class Ranked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = (x * 100).to(torch.int32).argsort(dim=1, descending=True)
        return order[:, :3]


def test_argsort_of_integers_becomes_a_small_float_topk() -> None:
    x = torch.rand(2, 8, generator=torch.Generator().manual_seed(3))
    model = export_module(Ranked(), x)
    rewritten, _ = rewrite(model, get_target("trt-8.5"), {"x": x.numpy()})
    node = next(node for node in rewritten.graph.node if node.op_type == "TopK")
    k = next(tensor for tensor in rewritten.graph.initializer if tensor.name == node.input[1])
    assert onnx.numpy_helper.to_array(k).tolist() == [3]
    assert [finding.what for finding in lint(rewritten, get_target("trt-8.5")) if finding.op == "TopK"] == []
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], Ranked()(x).numpy())
    assert "trt-8.5 ranks no integers" in [finding.what for finding in lint(model, get_target("trt-8.5"))]


@pytest.fixture(scope="module")
def traced() -> onnx.ModelProto:
    model = small_vit(init_values=0.1)
    pruned = PrunedViT(model, budget_for(model, {1: 11, 2: 6}, similar=2), ("logits", "kept"))
    return trace(pruned, 1, {"recipe": {"a": 1}})


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_gets_a_clean_graph_that_computes_the_same(traced: onnx.ModelProto, target: str) -> None:
    feeds = image_for()
    rewritten, reports = rewrite(traced, get_target(target), feeds)
    assert [str(finding) for finding in lint(rewritten, get_target(target))] == []
    onnx.checker.check_model(rewritten, full_check=True)
    before, after = run_once(traced, feeds), run_once(rewritten, feeds)
    assert list(before) == list(after) == ["logits", "kept_1", "kept_2"]
    np.testing.assert_allclose(after["logits"], before["logits"], atol=2e-4)
    np.testing.assert_array_equal(after["kept_2"], before["kept_2"])
    table = operator_table(rewritten)
    forbidden = {"Shape", "NonZero", "If", "Loop", "Range", "ScatterElements", "ScatterND", "GatherElements"}
    assert forbidden.isdisjoint(table)
    assert get_target(target).lacks.isdisjoint(table)
    assert rewritten.opset_import[0].version <= get_target(target).opset
    assert {entry.key for entry in rewritten.metadata_props} == {"vitrim.recipe"}
    done = counts(reports)
    assert (done["qkv split once"], done["keys transposed once"], done["one scale per attention"]) == (4, 2, 2)
    if get_target(target).lacks <= {"Attention"}:
        assert len(rewritten.graph.node) < len(traced.graph.node)


def test_fused_attention_takes_every_block_and_hands_stages_their_matrix(traced: onnx.ModelProto) -> None:
    rewritten, reports = rewrite(traced, get_target("ort-cpu"), image_for(), fused_attention=True)
    modes = [
        next((entry.i for entry in node.attribute if entry.name == "qk_matmul_output_mode"), None)
        for node in rewritten.graph.node
        if node.op_type == "Attention"
    ]
    assert modes == [None, 3, 3, None]  # the matrix after the softmax
    table = operator_table(rewritten)
    assert "Softmax" not in table
    # One of the patch embedding and one of every similarity product: keys are averaged before any transpose.
    assert (table["Transpose"], counts(reports)["mean before the transpose"]) == (1 + 2, 2)
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


@pytest.mark.parametrize("batch", [1, 3])
def test_fused_attention_serves_readers_of_queries_keys_and_values(batch: int) -> None:
    x = torch.randn(batch, 17, 48, generator=torch.Generator().manual_seed(0))
    model = Inquisitive()
    graph = export_module(model, x)
    rewritten, reports = rewrite(graph, get_target("ort-cpu"), {"x": x.numpy()}, fused_attention=True)
    assert operator_table(rewritten)["Attention"] == 1
    assert counts(reports)["mean before the transpose"] >= 1
    expected = model(x).detach().numpy()
    np.testing.assert_allclose(run_once(rewritten, {"x": x.numpy()})["y"], expected, atol=1e-5)


def test_fused_attention_leaves_qk_norm_with_the_reason() -> None:
    model = small_vit(qk_norm=True)
    graph = trace(PrunedViT(model, budget_for(model, {})), 1)
    rewritten, reports = rewrite(graph, get_target("ort-cpu"), image_for(), fused_attention=True)
    assert "Attention" not in operator_table(rewritten)
    assert "QK-norm" in next(report for report in reports if report.name == "fused Attention").skipped[0][1]


def test_lowered_norm_and_gelu_count(traced: onnx.ModelProto) -> None:
    rewritten, reports = rewrite(traced, get_target("trt-8.5"), image_for())
    done = counts(reports)
    assert done["LayerNormalization to primitives"] == 9  # two a block and the last
    assert done["Gelu to Erf"] == operator_table(rewritten)["Erf"] == 4
    reduces = [node for node in rewritten.graph.node if node.op_type == "ReduceMean"]
    assert all(len(node.input) == 1 for node in reduces)  # opset 17: axes is an attribute


def test_a_pass_that_changes_the_result_is_caught_by_name(
    traced: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: Any, match: Any, context: Any) -> None:
        match["node"].attrs["epsilon"] = 10.0

    broken = Pass("broken on purpose", frozenset({"LayerNormalization"}), lambda node, context: {"node": node}, spoil)
    monkeypatch.setattr(pipeline, "PASSES", (*PASSES[:3], broken))
    with pytest.raises(ParityError, match="pass 'broken on purpose' changed the output logits by"):
        rewrite(traced, get_target("ort-cpu"), image_for())


def test_a_pass_that_breaks_the_graph_is_named(traced: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Any, match: Any, context: Any) -> None:
        match["node"].op, match["node"].attrs = "Det", {}  # onnxruntime has no determinant of this many dimensions

    broken = Pass("broken on purpose", frozenset({"Conv"}), lambda node, context: {"node": node}, spoil)
    monkeypatch.setattr(pipeline, "PASSES", (broken,))
    with pytest.raises(UnsupportedError, match=r"pass 'broken on purpose': "):
        rewrite(traced, get_target("ort-cpu"), image_for())


def test_comparison_of_a_pass_names_what_changed() -> None:
    kept = np.array([[0, 1, 2]], dtype=np.int32)
    with pytest.raises(ParityError, match="changed the decisions in kept_1"):
        hold_against("p", {"kept_1": kept}, {"kept_1": kept + 1})
    with pytest.raises(ParityError, match="its shape, type or name differ"):
        hold_against("p", {"kept_1": kept}, {})
    with pytest.raises(ParityError, match="by nan"):
        hold_against("p", {"y": np.ones(2, np.float32)}, {"y": np.array([1, np.nan], np.float32)})
    assert hold_against("p", {"y": np.zeros(2, np.float32)}, {"y": np.full(2, 1e-6, np.float32)}) == pytest.approx(1e-6)


@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(
    depth=st.integers(1, 2),
    heads=st.integers(1, 3),
    registers=st.integers(0, 2),
    batch=st.integers(1, 2),
    method=st.sampled_from([*METHODS]),
    place=st.sampled_from(["before_mlp", "after_block"]),
    target=st.sampled_from(["ort-cpu", "trt-8.5", "trt-10.3"]),
    fused=st.booleans(),
    data=st.data(),
)
def test_any_legal_budget_exports_static_and_equal(
    depth: int, heads: int, registers: int, batch: int, method: str, place: str, target: str, fused: bool, data: Any
) -> None:
    model = small_vit(depth=depth, num_heads=heads, embed_dim=heads * 8, reg_tokens=registers)
    tokens, least = 17 + registers, 2 + registers
    after = sorted((data.draw(st.integers(least, tokens)) for _ in range(depth)), reverse=True)
    now = tokens
    for index, wanted in enumerate(after):  # one matching merges at most half
        now = after[index] = max(wanted, now - METHODS[method].largest_removal(now, 1 + registers))
    budget = budget_for(model, dict(enumerate(after)), method, {"place": place})
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    feeds = image_for(batch)
    rewritten, _ = rewrite(
        trace(pruned, batch), get_target(target), feeds, fused_attention=fused and target == "ort-cpu"
    )
    assert [str(finding) for finding in lint(rewritten, get_target(target))] == []
    outputs = run_once(rewritten, feeds)
    with torch.inference_mode():
        reference = pruned.trace(torch.from_numpy(feeds["image"]))
    assert reference.logits is not None
    scale = max(1.0, float(reference.logits.abs().max()))
    gaps = [float(gap.min()) for gap in reference.gap.values()]
    if min(gaps, default=1.0) > 1e-4:  # a near-tie may rightly fall the other way
        np.testing.assert_allclose(outputs["logits"], reference.logits.numpy(), atol=1e-4 * scale)
        for block, pairs in reference.merged.items():
            np.testing.assert_array_equal(outputs[f"merged_{block}"], pairs.numpy())
    for block, ids in reference.kept.items():
        assert outputs[f"kept_{block}"].shape == ids.shape


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5"])
@pytest.mark.parametrize(
    ("method", "parameters"),
    [("tome", {}), ("tofu", {}), ("ppt", {"threshold": 0.004}), ("evit", {"fuse": True}), ("frugal", {})],
    ids=str,
)
def test_merging_exports_clean_and_equal(method: str, parameters: dict[str, Any], target: str, batch: int) -> None:
    model = small_vit()
    budget = budget_for(model, {0: 14, 2: 9, 3: 6}, method, parameters)
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    feeds = image_for(batch)
    fused = target == "ort-cpu"
    rewritten, _ = rewrite(trace(pruned, batch), get_target(target), feeds, fused_attention=fused)
    assert [str(finding) for finding in lint(rewritten, get_target(target))] == []
    table = operator_table(rewritten)
    assert not any(op.startswith("Scatter") for op in table)
    if fused:
        assert table["Attention"] == 4
        # beside the fused operators: the class token's row alone, once a stage, where a method reads it
        reads = method in ("ppt", "evit", "frugal") and parameters.get("policy") != "pool"
        assert table.get("Softmax", 0) == (3 if reads else 0)
    outputs = run_once(rewritten, feeds)
    with torch.inference_mode():
        reference = pruned.trace(torch.from_numpy(feeds["image"]))
    assert reference.logits is not None
    np.testing.assert_allclose(outputs["logits"], reference.logits.numpy(), atol=1e-4)
    for kind in ("kept", "merged"):
        for block, ids in getattr(reference, kind).items():
            np.testing.assert_array_equal(np.sort(outputs[f"{kind}_{block}"]), np.sort(ids.numpy()))
