"""Budgets from targets, rates, mass and search: met, legal, and as large as they can be."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers import small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.tokens.cost import dense_plan, graph_macs, model_macs, total_macs
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.scores import patches_for_mass
from vitrim.calibration.tokens.solve import builder, from_mass, from_target, reach, removable, to_multiples
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.methods import METHODS, get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.methods.options import check_budget
from vitrim.exporter.pruning.shape import ViTShape, check_fits_model, describe

BY_COUNT = [name for name, method in METHODS.items() if method.placement.sized_by == "counts"]


@functools.cache
def narrow() -> ViTShape:
    """197 tokens, but few channels."""
    return describe(create_model("vit_tiny_patch16_224", args={"embed_dim": 24, "num_heads": 3}, random=0))


@pytest.fixture(scope="module")
def tiny() -> ViTShape:
    return describe(create_model("deit_tiny_patch16_224", random=0))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0.4, 0.92),
    stages=st.integers(1, 4),
    final=st.booleans(),
    method=st.sampled_from(["zero_tprune", "evit"]),
)
def test_targets_are_met_within_a_percent_and_never_passed(ratio: float, stages: int, final: bool, method: str) -> None:
    shape = describe(create_model("vit_tiny_patch16_224", args={"embed_dim": 24, "num_heads": 3}, random=0))
    macs = ratio * model_macs(shape, dense_plan(shape))
    rule = default_rule(shape, method, {}, stages=stages, final=final)
    budget = from_target(shape, method, {}, macs, rule)
    check_fits_model(budget, shape)
    reached = total_macs(shape, budget)
    assert reached <= macs
    assert reached >= 0.99 * macs


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(ratio=st.floats(0.6, 0.92), final=st.booleans(), method=st.sampled_from(sorted(BY_COUNT)))
def test_merging_methods_meet_targets_within_what_one_matching_can_merge(
    ratio: float, final: bool, method: str
) -> None:
    shape = describe(create_model("vit_tiny_patch16_224", args={"embed_dim": 24, "num_heads": 3}, random=0))
    macs = ratio * model_macs(shape, dense_plan(shape))
    budget = from_target(shape, method, {}, macs, default_rule(shape, method, {}, final=final))
    check_fits_model(budget, shape)
    assert 0.99 * macs <= total_macs(shape, budget) <= macs
    for row in budget.stages:
        assert row.after == 1 or row.before - row.after <= largest_reduction(row.before, 1)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    ratio=st.floats(0.6, 0.92),
    multiple=st.integers(2, 24),
    stages=st.integers(1, 4),
    final=st.booleans(),
    method=st.sampled_from(sorted(METHODS)),
)
def test_tokens_are_multiples_within_the_same_cost(
    ratio: float, multiple: int, stages: int, final: bool, method: str
) -> None:
    shape = narrow()
    macs = ratio * model_macs(shape, dense_plan(shape))
    rule = default_rule(shape, method, {}, stages=stages, final=final)
    try:
        single = from_target(shape, method, {}, macs, rule)
    except InputError:  # such stages cannot reach it
        with pytest.raises(InputError):
            from_target(shape, method, {}, macs, rule, multiple)
        return
    budget = from_target(shape, method, {}, macs, rule, multiple)
    taken = budget.statistics["multiple"]
    assert multiple % taken == 0
    assert [row.after for row in budget.stages if row.after > 1 and row.after % taken] == []
    assert min(0.99 * macs, total_macs(shape, single)) <= total_macs(shape, budget) <= macs
    check_fits_model(budget, shape)
    check_budget(get_method(method), budget)


def test_multiples_of_deit_tiny_s_tokens_are_near_the_rule_s(tiny: ViTShape) -> None:
    macs, rule = 0.81e9, default_rule(tiny, "zero_tprune", {})
    budget = from_target(tiny, "zero_tprune", {}, macs, rule, 8)
    assert [row.after for row in budget.stages] == [144, 112, 88, 64, 1]  # 148, 111, 84, 64 and 1 without
    assert budget.statistics == {"multiple": 8}
    assert 0.99 * macs <= total_macs(tiny, budget) <= macs
    assert from_target(tiny, "zero_tprune", {}, macs, rule, 1) == from_target(tiny, "zero_tprune", {}, macs, rule)


def test_where_a_multiple_is_too_coarse_its_largest_divisor_that_meets_the_target_is_taken() -> None:
    shape = describe(small_vit(depth=6))  # of 17 tokens
    macs = 0.68 * model_macs(shape, dense_plan(shape))
    rule = default_rule(shape, "evit", {})
    wished = [row.after - 1 for row in from_target(shape, "evit", {}, macs, rule).stages[:-1]]
    assert wished == [11, 9, 7]
    _, cost = builder(shape, "evit", {}, rule)
    most = removable(get_method("evit"), 1, {})
    for step in (8, 4, 5):
        assert to_multiples(wished, step, 16, 1, cost, macs, most) is None
    assert to_multiples(wished, 1, 16, 1, cost, macs, most) == wished
    for asked, taken in ((8, 2), (4, 2), (2, 2), (5, 1), (1, None)):
        budget = from_target(shape, "evit", {}, macs, rule, asked)
        assert budget.statistics.get("multiple") == taken
        assert [row.after for row in budget.stages] == [12, 10, 8, 1]


def test_no_stage_removes_more_than_it_can_for_a_multiple(tiny: ViTShape) -> None:
    macs = 0.6 * model_macs(tiny, dense_plan(tiny))
    budget = from_target(tiny, "tome", {}, macs, default_rule(tiny, "tome", {}), 16)
    for row in budget.stages[:-1]:
        assert row.before - row.after <= largest_reduction(row.before, 1)
        assert row.after % budget.statistics["multiple"] == 0
    assert budget.statistics["multiple"] in (8, 16)


def test_mass_is_held_in_multiples(tiny: ViTShape) -> None:
    importance = np.random.default_rng(0).dirichlet(np.full(196, 0.2), (5, 12))
    for method in ("zero_tprune", "frugal"):
        rule = default_rule(tiny, method, {})
        single = from_mass(tiny, method, {}, importance, 0.7, 0.9, rule)
        budget = from_mass(tiny, method, {}, importance, 0.7, 0.9, rule, 8)
        assert {row.after % 8 for row in budget.stages[:-1]} == {0}
        assert all(0 <= more - less < 8 for more, less in zip(budget.tokens, single.tokens, strict=True))
        assert budget.tokens != single.tokens
        check_budget(get_method(method), budget)


def test_a_merging_target_out_of_reach_names_the_least(tiny: ViTShape) -> None:
    with pytest.raises(InputError, match=r"asks for 0.500 GMACs.*stages at blocks \[3, 6, 9\] the least is 0\.6"):
        from_target(tiny, "ppt", {}, 0.5e9, default_rule(tiny, "ppt", {}, final=False))


def test_the_rule_s_budget_of_deit_tiny(tiny: ViTShape) -> None:
    budget = from_target(tiny, "zero_tprune", {}, 0.81e9, default_rule(tiny, "zero_tprune", {}))
    assert [(row.block, row.after, row.options.get("similar")) for row in budget.stages] == [
        (3, 148, 49),
        (6, 111, 37),
        (8, 84, 27),
        (10, 64, 20),
        (11, 1, None),
    ]
    assert 0.802 < budget.total_gmacs <= 0.81


def test_unreachable_targets_name_the_range(tiny: ViTShape) -> None:
    rule = default_rule(tiny, "zero_tprune", {})
    with pytest.raises(InputError, match=r"asks for 2\.000 GMACs, but the dense model costs 1\.254"):
        from_target(tiny, "zero_tprune", {}, 2e9, rule)
    assert graph_macs(tiny) == 1_166_602_752
    with pytest.raises(InputError, match=r"asks for 1\.200 GMACs, but with nothing removed the graph costs 1\.167"):
        from_target(tiny, "zero_tprune", {}, 1.2e9, rule)
    with pytest.raises(InputError, match=r"stages at blocks \[3, 6, 8, 10\] the least is 0\.\d+"):
        from_target(tiny, "zero_tprune", {}, 1e8, rule)


def test_mass_budgets_never_grow(tiny: ViTShape) -> None:
    rng = np.random.default_rng(0)
    importance = rng.dirichlet(np.full(196, 0.2), (5, 12))
    rule = default_rule(tiny, "zero_tprune", {})
    small = from_mass(tiny, "zero_tprune", {}, importance, 0.5, 0.9, rule)
    large = from_mass(tiny, "zero_tprune", {}, importance, 0.9, 0.9, rule)
    for budget in (small, large):
        check_fits_model(budget, tiny)
    assert small.gmacs["pruned"] < large.gmacs["pruned"]


@pytest.mark.parametrize("method", BY_COUNT)
def test_mass_removes_no_more_than_one_matching_can_merge(tiny: ViTShape, method: str) -> None:
    importance = np.random.default_rng(0).dirichlet(np.full(196, 0.2), (5, 12))
    rule = default_rule(tiny, method, {})
    budget = from_mass(tiny, method, {}, importance, 0.5, 0.9, rule)
    check_budget(get_method(method), budget)
    first = budget.stages[0]
    wanted = int(patches_for_mass(importance, 0.5, 0.9)[first.block])
    assert wanted < 90  # it asks for more than a matching can do
    assert first.after == 99


@pytest.mark.parametrize("method", ["evit", "tome"])
@pytest.mark.parametrize("final", [False, True])
def test_what_is_in_reach_has_a_budget_at_both_ends(method: str, final: bool) -> None:
    shape = describe(small_vit(depth=6))
    rule = default_rule(shape, method, {}, final=final)
    least, most = reach(shape, method, {}, rule)
    cheap, dear = (from_target(shape, method, {}, macs, rule) for macs in (least, most))
    assert total_macs(shape, cheap) == least < total_macs(shape, dear) <= most
    for outside in (least - 1, most + 1):
        with pytest.raises(InputError, match=r"prune\.target asks for"):
            from_target(shape, method, {}, outside, rule)
