"""Budgets from targets, rates, mass and search: met, legal, and as large as they can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.images.sources import ArrayImages
from vitrim.calibration.tokens.budgets import from_counts, from_keep_rates, from_preset, make_budget, spread
from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.calibration.tokens.presets import get_preset
from vitrim.calibration.tokens.rules import check_blocks, default_rule
from vitrim.calibration.tokens.scores import gather, patches_for_mass, statistics
from vitrim.calibration.tokens.search import search
from vitrim.calibration.tokens.solve import from_mass, from_target
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.budget import check_legal
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import ViTShape, describe
from vitrim.exporter.pruning.vit import PrunedViT

BY_COUNT = [name for name, method in METHODS.items() if method.placement.sized_by == "counts"]


@pytest.fixture(scope="module")
def tiny() -> ViTShape:
    return describe(create_model("deit_tiny_patch16_224", random=0))


def legal(shape: ViTShape, budget: Any) -> None:
    check_legal(
        budget,
        depth=shape.depth,
        tokens=shape.tokens,
        prefix_tokens=shape.prefix_tokens,
        prefix_pooled=shape.prefix_pooled,
    )


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0.4, 0.99),
    stages=st.integers(1, 4),
    final=st.booleans(),
    method=st.sampled_from(["zero_tprune", "evit"]),
)
def test_targets_are_met_within_a_percent_and_never_passed(ratio: float, stages: int, final: bool, method: str) -> None:
    shape = describe(create_model("vit_tiny_patch16_224", args={"embed_dim": 24, "num_heads": 3}, random=0))
    macs = ratio * model_macs(shape, dense_plan(shape))
    rule = default_rule(shape, method, {}, stages=stages, final=final)
    budget = from_target(shape, method, {}, macs, rule)
    legal(shape, budget)
    reached = model_macs(shape, budget.plan())
    assert reached <= macs
    assert reached >= 0.99 * macs


@settings(max_examples=40, deadline=None)
@given(ratio=st.floats(0.55, 0.99), final=st.booleans(), method=st.sampled_from(sorted(BY_COUNT)))
def test_merging_methods_meet_targets_within_what_one_matching_can_merge(
    ratio: float, final: bool, method: str
) -> None:
    shape = describe(create_model("vit_tiny_patch16_224", args={"embed_dim": 24, "num_heads": 3}, random=0))
    macs = ratio * model_macs(shape, dense_plan(shape))
    budget = from_target(shape, method, {}, macs, default_rule(shape, method, {}, final=final))
    legal(shape, budget)
    assert 0.99 * macs <= model_macs(shape, budget.plan()) <= macs
    for row in budget.stages:
        assert row.after == 1 or row.before - row.after <= largest_reduction(row.before, 1)


def test_a_merging_target_out_of_reach_names_the_least(tiny: ViTShape) -> None:
    with pytest.raises(InputError, match=r"asks for 0.500 GMACs.*stages at blocks \[3, 6, 9\] the least is 0\.6"):
        from_target(tiny, "ppt", {}, 0.5e9, default_rule(tiny, "ppt", {}, final=False))


@pytest.mark.parametrize(
    ("preset", "tokens"),
    [
        ("ppt-50", {3: 147, 6: 97, 9: 49}),
        ("evit-fused-0.9", {3: 179, 6: 163, 9: 148}),
        ("evit-fused-0.5", {3: 100, 6: 52, 9: 28}),
        ("tome-13", dict(enumerate([184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41]))),
        ("tome-16", dict(enumerate([181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]))),
    ],
)
def test_published_plans_of_the_other_methods(tiny: ViTShape, preset: str, tokens: dict[int, int]) -> None:
    budget = from_preset(tiny, get_preset(preset))
    assert {row.block: row.after for row in budget.stages} == tokens


def test_tome_s_schedules() -> None:
    assert spread(13, -1.0, 12) == [26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0]
    assert spread(13, 0.0, 12) == [13] * 12


def test_counts_by_hand(tiny: ViTShape) -> None:
    rule = default_rule(tiny, "tome", {}, blocks=[2, 5], final=False)
    budget = from_counts(tiny, "tome", {}, [150, 20], rule)
    assert [(row.block, row.before, row.after) for row in budget.stages] == [(2, 197, 99), (5, 99, 79)]
    with pytest.raises(InputError, match="lists 3 numbers, but there are stages at 2 blocks"):
        from_counts(tiny, "tome", {}, [1, 2, 3], rule)
    with pytest.raises(InputError, match="takes 196 of 196 patches at block 2; take at most 195"):
        from_counts(tiny, "evit", {}, [196, 1], default_rule(tiny, "evit", {}, blocks=[2, 5]))


def test_the_rule_s_budget_of_deit_tiny(tiny: ViTShape) -> None:
    budget = from_target(tiny, "zero_tprune", {}, 0.81e9, default_rule(tiny, "zero_tprune", {}))
    assert [(row.block, row.after, row.options.get("similar")) for row in budget.stages] == [
        (3, 135, 62),
        (6, 100, 35),
        (10, 80, 6),
        (11, 1, None),
    ]
    assert 0.802 < budget.gmacs["pruned"] <= 0.81


def test_no_free_last_stage_where_patches_are_classified() -> None:
    shape = describe(small_vit("vit_base_patch16_224.mae", global_pool="avg", depth=12))
    assert not default_rule(shape, "zero_tprune", {}).final
    token = describe(small_vit(depth=12))
    assert default_rule(token, "zero_tprune", {}).final
    assert not default_rule(token, "zero_tprune", {}, final=False).final
    assert not default_rule(token, "zero_tprune", {"place": "after_block"}).final
    assert not default_rule(token, "zero_tprune", {}, blocks=[3, 11]).final


def test_unreachable_targets_name_the_range(tiny: ViTShape) -> None:
    rule = default_rule(tiny, "zero_tprune", {})
    with pytest.raises(InputError, match=r"asks for 2\.000 GMACs, but the dense model costs 1\.254"):
        from_target(tiny, "zero_tprune", {}, 2e9, rule)
    with pytest.raises(InputError, match=r"stages at blocks \[3, 6, 10\] the least is 0\.\d+"):
        from_target(tiny, "zero_tprune", {}, 1e8, rule)


def test_blocks_and_stages_must_fit(tiny: ViTShape) -> None:
    assert check_blocks([9, 3], 12) == (3, 9)
    with pytest.raises(InputError, match=r"prune\.blocks is \[3, 3\]"):
        check_blocks([3, 3], 12)
    with pytest.raises(InputError, match="from 0 to 11"):
        check_blocks([12], 12)
    with pytest.raises(InputError, match=r"prune\.stages is 4, but a model of 2 blocks"):
        default_rule(describe(small_vit(depth=2)), "evit", {}, stages=4)


def test_keep_rates_truncate_and_evit_rounds_up(tiny: ViTShape) -> None:
    zero = from_keep_rates(tiny, "zero_tprune", {}, {3: 0.7, 6: 0.7})
    assert [row.after for row in zero.stages] == [138, 96]
    evit = from_keep_rates(tiny, "evit", {}, {3: 0.7, 6: 0.7})
    assert [row.after for row in evit.stages] == [139, 98]
    with pytest.raises(InputError, match="names block 12"):
        from_keep_rates(tiny, "evit", {}, {12: 0.5})
    with pytest.raises(InputError, match="leaves none"):
        from_keep_rates(tiny, "zero_tprune", {}, {3: 0.001})


def test_patches_for_mass_by_hand() -> None:
    importance = np.array([[[0.5, 0.3, 0.1, 0.1]], [[0.25, 0.25, 0.25, 0.25]], [[1.0, 0.0, 0.0, 0.0]]])
    assert patches_for_mass(importance, 0.8, 0.0).tolist() == [1]
    assert patches_for_mass(importance, 0.8, 0.5).tolist() == [2]
    assert patches_for_mass(importance, 0.8, 1.0).tolist() == [4]


def test_mass_budgets_never_grow(tiny: ViTShape) -> None:
    rng = np.random.default_rng(0)
    importance = rng.dirichlet(np.full(196, 0.2), (5, 12))
    rule = default_rule(tiny, "zero_tprune", {})
    small = from_mass(tiny, "zero_tprune", {}, importance, 0.5, 0.9, rule)
    large = from_mass(tiny, "zero_tprune", {}, importance, 0.9, 0.9, rule)
    for budget in (small, large):
        legal(tiny, budget)
    assert small.gmacs["pruned"] < large.gmacs["pruned"]


def noise(model: Any, count: int = 5) -> ArrayImages:
    pixels = np.random.default_rng(0).standard_normal((count, 3, 64, 64), dtype=np.float32)
    return ArrayImages(pixels, None, preprocessing(model), "noise")


def test_scores_are_streamed_to_a_file_and_independent_of_the_batch(tmp_path: Path) -> None:
    model = small_vit()
    seen: list[tuple[int, int]] = []
    one = gather(
        model, noise(model), "zero_tprune", {}, tmp_path / "a.npy", batch=2, progress=lambda *p: seen.append(p)
    )
    two = gather(model, noise(model), "zero_tprune", {}, tmp_path / "b.npy", batch=5)
    assert isinstance(one.importance, np.memmap)
    assert one.importance.shape == (5, 4, 16)
    np.testing.assert_allclose(one.importance.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(one.importance, two.importance, atol=1e-6)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    figures = statistics(one)
    assert figures["images"] == 5
    assert len(figures["heads_kept"]) == 4
    half, most = figures["patches_for_mass_0.5"], figures["patches_for_mass_0.95"]
    assert all(a < b <= 16 for a, b in zip(half, most, strict=True))


def test_scores_equal_the_stage_s_own(tmp_path: Path) -> None:
    """What calibration measures is what a stage ranks by: the top patches of a stage without similarity."""
    model = small_vit()
    source = noise(model, 3)
    scores = gather(model, source, "zero_tprune", {}, tmp_path / "a.npy").importance
    shape = describe(model)
    budget = make_budget(shape, "zero_tprune", {"place": "after_block"}, [StagePlan(1, 7, options={"iterations": 5})])
    import torch

    with torch.inference_mode():
        kept = PrunedViT(model, budget).trace(torch.from_numpy(source.pixels)).kept[1]
    for image in range(3):
        best = np.sort(np.argsort(-scores[image, 1])[:7]) + 1
        assert kept[image, 1:].tolist() == best.tolist()


def test_methods_without_scores_are_named(tmp_path: Path) -> None:
    model = small_vit()
    with pytest.raises(InputError, match="uniform has no scores"):
        gather(model, noise(model), "uniform", {}, tmp_path / "a.npy")


def test_search_never_does_worse_and_is_repeatable() -> None:
    model = small_vit(depth=6)
    shape = describe(model)
    macs = 0.7 * model_macs(shape, dense_plan(shape))
    start = from_target(shape, "zero_tprune", {}, macs, default_rule(shape, "zero_tprune", {}))
    results = [search(model, noise(model, 8), start, macs, 12, 3) for _ in range(2)]
    assert results[0].budget == results[1].budget
    assert results[0].kl_of_best <= results[0].kl_of_rule
    assert results[0].trials == 12
    assert model_macs(shape, results[0].budget.plan()) <= macs
    legal(shape, results[0].budget)
