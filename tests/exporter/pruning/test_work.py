"""Which tokens a block works for: by form, in numbers, and to the same logits however early something is left out."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from helpers import budget_for, random_widths, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.pruning.budget import PLACES
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.slim import slim
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.pruning.whole import WholeModel
from vitrim.exporter.pruning.work import Form, Work, form_of, rows_read, work_of

GAP: dict[str, Any] = {"class_token": False, "global_pool": "avg"}
vit_with = functools.cache(small_vit)


def forms(
    stages: dict[int, int],
    method: str,
    parameters: Any = None,
    features: bool = False,
    early: bool = True,
    **args: Any,
) -> list[Form]:
    model = vit_with(**args)
    shape, budget = describe(model), budget_for(model, stages, method, parameters)
    return [form_of(shape, budget, block, features, early) for block in range(4)]


def test_every_form_of_a_block() -> None:
    assert forms({}, "evit") == ["whole", "whole", "whole", "read"]
    assert forms({}, "evit", global_pool="avg") == forms({}, "evit", features=True) == ["whole"] * 4
    assert forms({1: 9, 3: 1}, "evit") == ["whole", "chosen", "whole", "read"]
    assert forms({1: 9, 3: 1}, "evit", features=True) == ["whole", "chosen", "whole", "chosen"]
    assert forms({1: 9, 3: 5}, "uniform", {"place": "after_block"}) == ["whole", "chosen", "whole", "chosen"]
    assert forms({1: 9, 3: 5}, "zero_tprune") == ["whole", "dropped", "whole", "dropped"]
    assert forms({1: 9}, "evit", **GAP) == ["whole", "dropped", "whole", "whole"]  # the average token's row
    assert forms({1: 9}, "evit", {"fuse": True}) == forms({1: 9}, "tome") == ["whole", "merged", "whole", "read"]
    assert forms({1: 9}, "evit", early=False) == ["whole", "merged", "whole", "read"]


def test_what_merges_before_the_queries_asks_no_more() -> None:
    before = {"place": "before_queries"}
    for early in (True, False):
        for method in ("tome", "frugal", "ppt", "evit"):
            assert forms({1: 9}, method, before, early=early) == ["whole", "chosen", "whole", "read"]
        assert forms({1: 9}, "evit", before | {"fuse": True}, early=early)[1] == "chosen"
        # All tokens have to ask: for the matrix, or for the average token's row.
        assert forms({1: 9}, "zero_tprune", before, early=early)[1] == "dropped"
        assert forms({1: 9}, "frugal", before, early=early, **GAP)[1] == "merged"
    model = small_vit()
    works = [
        work_of(describe(model), budget_for(model, {0: 12}, "frugal", {"place": place}), 0)
        for place in ("before_queries", "before_mlp", "after_block")
    ]
    assert works == [Work(17, 13, 12, 12, 12), Work(17, 17, 17, 17, 12), Work(17, 17, 17, 17, 17)]


def test_what_a_stage_reads_and_whether_it_chooses() -> None:
    model = small_vit()
    budget = budget_for(model, {1: 9, 3: 1}, "evit")
    assert [budget.chooses(block) for block in (1, 3)] == [True, False]
    evit, shapes = PrunedViT(model, budget).method, (describe(model), describe(small_vit(**GAP)))
    assert [rows_read(evit, shape.class_token) for shape in shapes] == ["first", "all"]


def test_the_tokens_of_every_part() -> None:
    model = small_vit("deit_tiny_distilled_patch16_224")  # 18 tokens, of which the classifier reads two
    shape, budget = describe(model), budget_for(model, {0: 12, 1: 8}, "evit")
    assert [work_of(shape, budget, block) for block in range(4)] == [
        Work(keys=18, queries=13, rows=12, projected=12, mlp=12),  # the class token asks before and after the choice
        Work(12, 9, 8, 8, 8),
        Work(8, 8, 8, 8, 8),
        Work(8, 2, 2, 2, 2),
    ]
    assert work_of(shape, budget_for(model, {0: 12}, "zero_tprune"), 0) == Work(18, 18, 18, 12, 12)
    assert work_of(shape, budget_for(model, {0: 12}, "tome"), 0) == Work(18, 18, 18, 18, 12)
    after_block = budget_for(model, {0: 12}, "tome", {"place": "after_block"})
    assert work_of(shape, after_block, 0) == Work(18, 18, 18, 18, 18)
    assert [work_of(shape, None, block) for block in (2, 3)] == [Work(18, 18, 18, 18, 18), Work(18, 2, 2, 2, 2)]


@settings(max_examples=8, deadline=None)
@given(
    method=st.sampled_from(["evit", "ats", "uniform", "slice", "zero_tprune"]),
    place=st.sampled_from(PLACES),
    model=st.sampled_from(["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"]),
    qk_norm=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_left_out_early_changes_no_logit(method: str, place: str, model: str, qk_norm: bool, seed: int) -> None:
    """Against the same decisions in the form that drops after the attention, or the MLP, and keeps the last block."""
    vit = small_vit(model, seed=seed, patch_size=16, qk_norm=qk_norm)
    prefix = describe(vit).prefix_tokens
    budget = budget_for(vit, {0: prefix + 12, 2: prefix + 5}, method, {"place": place})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        early = PrunedViT(vit, budget).trace(images)
        late = PrunedViT(vit, budget, compares=True).trace(images, tokens=True)
    for block, kept in early.kept.items():
        assert torch.equal(kept, late.kept[block])
    assert early.logits is not None
    torch.testing.assert_close(early.logits, late.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["frugal", "tome", "ppt"])
@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_what_merges_before_the_queries_is_the_same_for_a_gpu(method: str, model: str) -> None:
    vit = small_vit(model, patch_size=16)
    prefix = describe(vit).prefix_tokens
    budget = budget_for(vit, {0: prefix + 12, 2: prefix + 7}, method, {"place": "before_queries"})
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ranked, compared = (PrunedViT(vit, budget, compares=compares).trace(images) for compares in (False, True))
    assert all(torch.equal(kept, compared.kept[block]) for block, kept in ranked.kept.items())
    assert ranked.logits is not None
    torch.testing.assert_close(ranked.logits, compared.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["frugal", "tome"])
def test_what_merges_before_the_queries_gives_other_logits(method: str) -> None:
    vit = small_vit()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    budgets = [budget_for(vit, {0: 12, 2: 7}, method, {"place": place}) for place in ("before_queries", "before_mlp")]
    with torch.inference_mode():
        before, behind = (PrunedViT(vit, budget)(images) for budget in budgets)
    assert 1e-3 < (before - behind).abs().max() < 0.5 * behind.std()


@pytest.mark.parametrize("seed", range(3))
def test_a_slimmed_model_s_last_block_is_its_own(seed: int) -> None:
    """Heads and neurons differ by block, so query, key and value are as wide as the last one's heads."""
    model = small_vit(seed=seed)
    narrow: Any = slim(model, random_widths(model, seed))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = narrow(images)
        for lean in (WholeModel(narrow), WholeModel(narrow, compares=True), PrunedViT(narrow, budget_for(narrow, {}))):
            torch.testing.assert_close(lean(images), expected, atol=1e-5, rtol=0)
