"""The pruned model: bit-identity where nothing is removed, over every supported family, and what stages do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import attended, budget_for, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import set_fused_attn

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.block import embed
from vitrim.exporter.pruning.budget import PLACES, parse_budget
from vitrim.exporter.pruning.decisions import Replay
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.pruning.whole import WholeModel

# Every family of the README by the timm name that carries its peculiarity.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT and AugReg": ("vit_tiny_patch16_224", {}),
    "DeiT": ("deit_tiny_patch16_224", {}),
    "distilled DeiT": ("deit_tiny_distilled_patch16_224", {}),
    "DeiT-III (LayerScale, no class position)": ("deit3_small_patch16_224", {}),
    "MAE-style average pooling": ("vit_base_patch16_224.mae", {"global_pool": "avg"}),
    "no class token": ("vit_medium_patch16_gap_240", {}),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {"patch_size": 16}),
    "CLIP-style pre-norm": ("vit_base_patch16_clip_224", {}),
    "QK-norm": ("vit_tiny_patch16_224", {"qk_norm": True, "init_values": 0.1}),
    "SigLIP attention pooling": ("vit_base_patch16_siglip_224", {}),
    "normed attention": ("vit_tiny_patch16_224", {"scale_attn_norm": True}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["before_mlp", "after_block"])
def test_removing_nothing_is_bit_identical(family: str, place: str) -> None:
    name, args = FAMILIES[family]
    model = small_vit(name, **args)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pruned = PrunedViT(model, budget_for(model, {}, parameters={"place": place}))
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(model.forward_head(pruned.forward_features(images)), expected)
        assert torch.equal(pruned.trace(images, tokens=True).logits, expected)
        # The last block runs for the tokens that are read alone.
        for lean in (pruned(images), WholeModel(model)(images)):
            torch.testing.assert_close(lean, expected, atol=1e-5, rtol=0)
            assert torch.equal(lean, expected) or describe(model).read_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spelled_out_attention_is_timm_s_to_the_bit(family: str) -> None:
    name, args = FAMILIES[family]
    set_fused_attn(False)
    try:
        model = small_vit(name, **args)
    finally:
        set_fused_attn(True)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = embed(model, x)
        for index, block in enumerate(model.blocks):
            normed = block.norm1(x)
            out, seen = attended(model, index, normed)
            attention, keys, values = seen.attention, seen.keys, seen.values
            assert torch.equal(out, block.ls1(block.attn(normed)))
            assert attention is not None
            torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
            assert keys.shape == values.shape == (2, block.attn.num_heads, x.shape[1], block.attn.head_dim)
            x = block(x)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_prunes_and_protects_its_prefix(family: str) -> None:
    name, args = FAMILIES[family]
    model = small_vit(name, **args)
    shape = describe(model)
    first, second = shape.prefix_tokens + 11, shape.prefix_tokens + 6
    pruned = PrunedViT(model, budget_for(model, {1: first, 2: second}, similar=2))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert trace.kept[1].shape == (3, first)
    assert trace.kept[2].shape == (3, second)
    for kept in trace.kept.values():
        assert torch.equal(kept[:, : shape.prefix_tokens], torch.arange(shape.prefix_tokens).expand(3, -1))
        assert (kept.diff(dim=1) > 0).all()
    for image in range(3):
        assert set(trace.kept[2][image].tolist()) <= set(trace.kept[1][image].tolist())
    assert trace.logits is not None
    assert torch.isfinite(trace.logits).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_timm_s_where_nothing_is_removed(family: str) -> None:
    name, args = FAMILIES[family]
    model = small_vit(name, **args)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.forward_features(images)
        assert torch.equal(PrunedViT(model, budget_for(model, {})).forward_features(images), expected)
        assert torch.equal(WholeModel(model).forward_features(images), expected)


@pytest.mark.parametrize("method", METHODS)
def test_features_of_a_pruned_sequence_are_what_the_head_reads(method: str) -> None:
    model = small_vit()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pruned = PrunedViT(model, budget_for(model, {0: 12, 2: 8}, method))
    with torch.inference_mode():
        features, trace = pruned.forward_features(images), pruned.trace(images, tokens=True)
        torch.testing.assert_close(pruned(images), trace.logits, atol=1e-5, rtol=0)
        assert features.shape == (2, 8, 48)
        assert torch.equal(features, model.norm(trace.tokens[3]))
        assert torch.equal(model.forward_head(features), trace.logits)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("method", "parameters"), [*((name, {}) for name in METHODS), ("evit", {"fuse": True}), ("ppt", {"policy": "pool"})]
)
def test_gradients_are_those_of_finite_differences(method: str, parameters: dict[str, Any], place: str) -> None:
    """The slope of the logits along one random direction of all weights and the images, decisions held."""
    draw = torch.Generator().manual_seed(0)
    model = small_vit(init_values=0.1).double().requires_grad_(True)
    images = torch.randn(2, 3, 64, 64, generator=draw, dtype=torch.float64).requires_grad_(True)
    pruned = PrunedViT(model, budget_for(model, {0: 12, 2: 8}, method, parameters | {"place": place}))
    trace = pruned.trace(images)
    mix = torch.randn(2, 7, generator=draw, dtype=torch.float64)
    assert trace.logits is not None
    (trace.logits * mix).sum().backward()
    whole = [*model.parameters(), images]
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in whole)
    along = [torch.randn(value.shape, generator=draw, dtype=torch.float64) for value in whole]
    slope = sum(float((value.grad * step).sum()) for value, step in zip(whole, along, strict=True))

    def moved(by: float) -> float:
        with torch.no_grad():
            for value, step in zip(whole, along, strict=True):
                value += by * step
            logits = pruned.trace(images, Replay(trace.kept, trace.merged)).logits
            for value, step in zip(whole, along, strict=True):
                value -= by * step
        assert logits is not None
        return float((logits * mix).sum())

    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-5)


def test_the_caller_s_model_keeps_its_modes_and_what_may_learn() -> None:
    model = small_vit().train().requires_grad_(True)
    model.blocks[1].eval()
    model.blocks[2].mlp.requires_grad_(False)
    images = torch.randn(2, 3, 64, 64)

    def state() -> list[bool]:
        return [part.training for part in model.modules()] + [value.requires_grad for value in model.parameters()]

    before = state()
    assert len(set(before)) == 2
    for whole in (WholeModel(model), PrunedViT(model, budget_for(model, {1: 9, 2: 5}, "ppt"))):
        assert whole(images).requires_grad
        assert whole.forward_features(images).requires_grad
        TorchRunner(whole, 2)(images.numpy())
        assert state() == before


def test_dropping_by_hand_gives_the_same_logits(vit: Any) -> None:
    """An independent forward: run the blocks, cut the kept rows out with plain indexing."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for place in PLACES:
        pruned = PrunedViT(vit, budget_for(vit, {1: 9}, "evit", {"place": place}))
        with torch.inference_mode():
            trace = pruned.trace(images)
            x = embed(vit, images)
            x = vit.blocks[0](x)
            block = vit.blocks[1]
            rows = torch.stack([torch.arange(2)] * 9, 1), trace.kept[1]
            if place == "after_block":
                x = block(x)[rows]
            else:
                x = (x + block.ls1(block.attn(block.norm1(x))))[rows]
                x = x + block.ls2(block.mlp(block.norm2(x)))
            x = vit.blocks[3](vit.blocks[2](x))
            expected = vit.forward_head(vit.norm(x))
        assert trace.logits is not None
        torch.testing.assert_close(trace.logits, expected, atol=2e-5, rtol=1e-5)


def test_a_budget_for_another_model_is_refused(vit: Any) -> None:
    other = small_vit("vit_small_patch14_reg4_dinov2", patch_size=16)
    with pytest.raises(InputError, match="prefix_tokens is 5, but the model has 1"):
        PrunedViT(vit, budget_for(other, {}))
    with pytest.raises(InputError, match=r"blocks\[1\]\.colour is not a known key \(known keys: similar, iterations\)"):
        PrunedViT(vit, budget_for(vit, {1: 9}, colour=1))
    with pytest.raises(InputError, match=r"parameters\.heads is 'max'"):
        PrunedViT(vit, budget_for(vit, {1: 9}, parameters={"heads": "max"}))
    with pytest.raises(InputError, match=r"blocks\[1\]\.similar is 12"):
        PrunedViT(vit, budget_for(vit, {1: 9}, similar=12))
    data = budget_for(vit, {1: 9}).model_dump()
    data["method"] = "zero_tprun"
    with pytest.raises(InputError, match="did you mean zero_tprune"):
        PrunedViT(vit, parse_budget(data))


@settings(max_examples=15, deadline=None)
@given(
    depth=st.integers(1, 3),
    heads=st.integers(1, 3),
    prefix=st.sampled_from([("vit_tiny_patch16_224", {}), ("vit_medium_patch16_gap_240", {})]),
    registers=st.integers(0, 2),
    batch=st.integers(1, 3),
    method=st.sampled_from(["zero_tprune", "evit", "random", "uniform", "slice"]),
    place=st.sampled_from(PLACES),
    data=st.data(),
)
def test_any_legal_budget_runs_with_the_planned_tokens(
    depth: int,
    heads: int,
    prefix: tuple[str, dict[str, Any]],
    registers: int,
    batch: int,
    method: str,
    place: str,
    data: st.DataObject,
) -> None:
    name, args = prefix
    model = small_vit(name, depth=depth, num_heads=heads, embed_dim=heads * 8, reg_tokens=registers, **args)
    shape = describe(model)
    after = sorted((data.draw(st.integers(shape.prefix_tokens + 1, shape.tokens)) for _ in range(depth)), reverse=True)
    budget = budget_for(model, dict(enumerate(after)), method, {"place": place})
    pruned = PrunedViT(model, budget, ("logits", "kept", "tokens"))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(batch, 3, 64, 64), tokens=True)
        assert trace.logits is not None
        assert trace.logits.shape == (batch, 7)
        assert [trace.tokens[block].shape[1] for block in range(depth)] == list(budget.tokens) == after
        if not budget.stages:
            images = torch.randn(batch, 3, 64, 64)
            assert torch.equal(pruned.trace(images, tokens=True).logits, model(images))


def test_a_method_that_merges_without_saying_how_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 12}, "tome"))
    monkeypatch.setattr(type(pruned.method), "merge_rule", lambda self, options, parameters, block: None)
    with pytest.raises(ValueError, match=r"tome\.select and its merge_rule or fuses disagree at block 1"):
        pruned(torch.randn(1, 3, 64, 64))


def test_tokens_are_told_in_the_order_of_their_ids(vit: Any) -> None:
    """They lie as they rank; the last block's are those of the dense model, of the ids that stay."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    pruned = PrunedViT(vit, budget_for(vit, {3: 9}, "evit", {"place": "after_block"}))
    with torch.inference_mode():
        whole = PrunedViT(vit, budget_for(vit, {})).trace(images, tokens=True).tokens[3]
        found = pruned.trace(images, tokens=True)
    kept = found.kept[3]
    assert torch.equal(kept, kept.sort(dim=1).values)
    expected = whole.gather(1, kept.unsqueeze(2).expand(-1, -1, whole.shape[2]))
    torch.testing.assert_close(found.tokens[3], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["tome", "tofu", "ppt", "frugal"])
def test_a_model_that_compares_decides_and_answers_as_one_that_sorts(method: str) -> None:
    model = small_vit("deit_tiny_patch16_224")
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    budget = budget_for(model, {1: 12, 2: 9, 3: 6}, method)
    with torch.inference_mode():
        sorts, compares = (PrunedViT(model, budget, compares=flag).trace(images) for flag in (False, True))
    torch.testing.assert_close(compares.logits, sorts.logits)
    for block, kept in sorts.kept.items():
        assert torch.equal(compares.kept[block], kept)
    for block, pairs in sorts.merged.items():
        assert torch.equal(compares.merged[block].sort(1).values, pairs.sort(1).values)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_rope_224"])
def test_blocks_can_be_run_one_by_one_from_what_another_plan_left(name: str) -> None:
    model = small_vit(name, depth=4)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = describe(model).tokens
    stages = [{1: tokens - 4, 2: after} for after in (tokens - 6, tokens - 8)]
    one, other = (PrunedViT(model, budget_for(model, rows, method="evit")) for rows in stages)
    with torch.inference_mode():
        state, first = one.step(0, one.start(images))
        state, second = one.step(1, state)
        assert first is None
        assert second is not None
        for block in (2, 3):
            state, _ = other.step(block, state)
        assert torch.equal(other.finish(state), other(images))
        assert not torch.equal(other.finish(state), one(images))
