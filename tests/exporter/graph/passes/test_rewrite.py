"""The whole line of passes: every target, what a broken pass is told, any budget, and weights beside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, small_vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import ParityError, UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.exporter.graph.files import read_bare, read_whole
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes import table
from vitrim.exporter.graph.passes.base import PatternPass
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.trace import trace, trace_into
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.graph.weights import is_external
from vitrim.exporter.pruning.budget import PLACES
from vitrim.exporter.pruning.methods import METHODS, get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.vit import PrunedViT


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_gets_a_clean_graph_that_computes_the_same(
    traced: onnx.ModelProto, target: str, image: Any, counts: Any
) -> None:
    feeds = image()
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


@pytest.mark.slow
@pytest.mark.parametrize(("method", "target"), [("evit", "openvino"), ("ppt", "trt-8.5"), ("frugal", "trt-rtx")])
def test_the_whole_grid_lowers_to_plain_gathers(method: str, target: str, image: Any) -> None:
    vit = small_vit(depth=2)
    wanted, budget, feeds = get_target(target), budget_for(vit, {0: 11, 1: 7}, method), image()
    traced = trace(PrunedViT(vit, budget, ("logits", "grid"), wanted.compares), 1)
    rewritten, _ = rewrite(traced, wanted, feeds)
    assert [str(finding) for finding in lint(rewritten, wanted)] == []
    assert {"ScatterElements", "ScatterND", "GatherElements", "GatherND"}.isdisjoint(operator_table(rewritten))
    dims = [dim.dim_value for dim in rewritten.graph.output[1].type.tensor_type.shape.dim]
    assert (rewritten.graph.output[1].name, dims) == ("tokens", [1, 17, 48])
    with torch.inference_mode():
        expected = PrunedViT(vit, budget, ("logits", "grid"))(torch.from_numpy(feeds["image"]))[1]
    np.testing.assert_allclose(run_once(rewritten, feeds)["tokens"], expected.numpy(), atol=1e-4)


def spoil(graph: Any, match: Any, context: Any) -> None:
    match.attrs["epsilon"] = 10.0


def test_a_pass_that_changes_the_result_is_caught_by_name(
    traced: onnx.ModelProto, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = PatternPass("broken on purpose", frozenset({"LayerNormalization"}), lambda node, context: node, spoil)
    monkeypatch.setattr(table, "PASSES", (*table.PASSES[:4], broken))
    with pytest.raises(ParityError, match="pass 'broken on purpose' changed the output logits by"):
        rewrite(traced, get_target("ort-cpu"), image())


def test_a_pass_that_does_not_hold_can_be_left_out(
    traced: onnx.ModelProto, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = PatternPass("broken norm", frozenset({"LayerNormalization"}), lambda node, context: node, spoil)
    wanted, _ = rewrite(traced, get_target("ort-cpu"), image())
    monkeypatch.setattr(table, "PASSES", (broken, *table.PASSES))
    said: list[str] = []
    found, reports = rewrite(traced, get_target("ort-cpu"), image(), left_out=said.append)
    (line,) = said
    assert line.startswith("left out, as it does not hold here, first at node ")
    assert "(LayerNormalization): pass 'broken norm' changed the output" in line
    assert (reports[0].name, reports[0].count) == ("broken norm", 0)
    assert operator_table(found) == operator_table(wanted)


def test_a_pass_that_breaks_the_graph_is_named(
    traced: onnx.ModelProto, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(graph: Any, match: Any, context: Any) -> None:
        match.op, match.attrs = "Det", {}  # onnxruntime has no determinant of this many dimensions

    broken = PatternPass("broken on purpose", frozenset({"Conv"}), lambda node, context: node, unknown)
    monkeypatch.setattr(table, "PASSES", (broken,))
    with pytest.raises(UnsupportedError, match=r"pass 'broken on purpose': "):
        rewrite(traced, get_target("ort-cpu"), image())


@pytest.mark.slow
@settings(
    max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(
    depth=st.integers(1, 2),
    heads=st.integers(1, 3),
    registers=st.integers(0, 2),
    batch=st.integers(1, 2),
    method=st.sampled_from([*METHODS]),
    place=st.sampled_from(PLACES),
    target=st.sampled_from(["ort-cpu", "openvino", "trt-8.5", "trt-10.3"]),
    fused=st.booleans(),
    data=st.data(),
)
def test_any_legal_budget_exports_static_and_equal(
    depth: int,
    heads: int,
    registers: int,
    batch: int,
    method: str,
    place: str,
    target: str,
    fused: bool,
    data: Any,
    image: Any,
) -> None:
    model = small_vit(depth=depth, num_heads=heads, embed_dim=heads * 8, reg_tokens=registers)
    tokens, least = 17 + registers, 2 + registers
    after = sorted((data.draw(st.integers(least, tokens)) for _ in range(depth)), reverse=True)
    if get_method(method).placement.sized_by == "counts":  # one matching merges at most half
        now = tokens
        for index, wanted in enumerate(after):
            now = after[index] = max(wanted, now - largest_reduction(now, 1 + registers))
    budget = budget_for(model, dict(enumerate(after)), method, {"place": place})
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    feeds = image(batch)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("tome", {}),
        ("tofu", {}),
        ("ppt", {"threshold": 0.004}),
        ("evit", {"fuse": True}),
        ("frugal", {}),
        ("frugal", {"place": "before_queries"}),
    ],
    ids=str,
)
def test_merging_exports_clean_and_equal(method: str, parameters: dict[str, Any], image: Any) -> None:
    """A batch of two; whole exports of bundles prove one of one image."""
    model = small_vit(depth=3)
    budget = budget_for(model, {0: 14, 1: 9, 2: 6}, method, parameters)
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    feeds = image(2)
    with torch.inference_mode():
        reference = pruned.trace(torch.from_numpy(feeds["image"]))
    assert reference.logits is not None
    traced = trace(pruned, 2)
    for target in map(get_target, ("ort-cpu", "trt-8.5")):
        fused = target.name == "ort-cpu"
        rewritten, _ = rewrite(traced, target, feeds, fused_attention=fused)
        assert [str(finding) for finding in lint(rewritten, target)] == []
        table = operator_table(rewritten)
        assert not any(op.startswith("Scatter") for op in table)
        if fused:
            assert table["Attention"] == 3
            # beside the fused operators: the class token's row alone, once a stage, where a method reads it
            reads = method in ("ppt", "evit", "frugal") and parameters.get("policy") != "pool"
            assert table.get("Softmax", 0) == (3 if reads else 0)
        outputs = run_once(rewritten, feeds)
        np.testing.assert_allclose(outputs["logits"], reference.logits.numpy(), atol=1e-4)
        for kind in ("kept", "merged"):
            for block, ids in getattr(reference, kind).items():
                np.testing.assert_array_equal(np.sort(outputs[f"{kind}_{block}"]), np.sort(ids.numpy()))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5"])
def test_weights_beside_the_graph_stay_there_and_change_nothing(target: str, image: Any, tmp_path: Path) -> None:
    vit = small_vit(depth=2, embed_dim=192)
    model = trace(PrunedViT(vit, budget_for(vit, {0: 12, 1: 8}), ("logits", "kept")), 1)
    with WeightStore(tmp_path / "traced") as store:
        store.save(model, "m.onnx")
    bare, weights = read_bare(tmp_path / "traced" / "m.onnx")
    feeds, fused = image(), target == "ort-cpu"
    whole, expected = rewrite(model, get_target(target), feeds, fused_attention=fused)
    lean, reports = rewrite(bare, get_target(target), feeds, fused_attention=fused, weights=weights)
    told = [[(report.to_dict() | {"seconds": 0}) for report in each] for each in (expected, reports)]
    assert told[0] == told[1]  # counts, nodes, and every error to the last bit
    outside = [tensor.name for tensor in lean.graph.initializer if is_external(tensor)]
    assert len(outside) == 2 * 4 + 1
    assert len(lean.SerializeToString()) < len(whole.SerializeToString()) / 10
    with WeightStore(tmp_path / "passes") as store:
        store.save(lean, "m.onnx", weights)
    assert read_whole(tmp_path / "passes" / "m.onnx").SerializeToString() == whole.SerializeToString()
    assert len(list((tmp_path / "passes").glob("*.data"))) == 1  # the traced graph's


def test_weights_that_are_gone_are_one_line(image: Any, tmp_path: Path) -> None:
    vit = small_vit(depth=1, embed_dim=192)
    with WeightStore(tmp_path) as store:
        trace_into(store, "m.onnx", PrunedViT(vit, budget_for(vit, {}), ("logits",)), 1)
    bare, weights = read_bare(tmp_path / "m.onnx")
    next(tmp_path.glob("*.data")).unlink()
    with pytest.raises(UnsupportedError, match="cannot run the graph"):
        rewrite(bare, get_target("ort-cpu"), image(), weights=weights)
