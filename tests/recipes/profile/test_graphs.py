"""Graphs that a table is measured on: plans that a method can reach, and what they are named."""

from __future__ import annotations

import pytest
from helpers import small_vit

from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.shape import describe
from vitrim.recipes.profile.graphs import SHARES, reference_plans
from vitrim.recipes.schema.sections.prune import PruneSection

MODEL = small_vit(depth=12)
SHAPE = describe(MODEL)
WHOLE = model_macs(SHAPE, dense_plan(SHAPE))


def test_plans_are_at_two_costs() -> None:
    light = reference_plans(MODEL, "frugal")
    assert [total_macs(SHAPE, plan) / WHOLE for plan in light] == pytest.approx(list(SHARES), abs=0.02)
    assert {plan.method for plan in light} == {"frugal"}


def test_a_recipe_s_own_stages_and_parameters_are_those_that_are_measured() -> None:
    own = PruneSection(
        method="evit",
        target={"flops_ratio": 0.7},
        blocks=[2, 5],
        parameters={"fuse": True},  # type: ignore[arg-type]
    )
    plans = reference_plans(MODEL, "evit", own)
    assert all([row.block for row in plan.choosing] == [2, 5] for plan in plans)
    assert all(plan.parameters["fuse"] is True for plan in plans)
    other = reference_plans(MODEL, "tome", own)  # of another method they say nothing
    assert all(len(plan.choosing) > 2 for plan in other)


def test_a_method_that_reaches_one_cost_has_one_plan_and_else_says_why() -> None:
    late = PruneSection(method="evit", target={"flops_ratio": 0.7}, blocks=[6])  # type: ignore[arg-type]
    assert len(reference_plans(MODEL, "evit", late)) == 1
    too_late = PruneSection(method="evit", target={"flops_ratio": 0.7}, blocks=[11])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="place stages earlier with prune.blocks"):
        reference_plans(MODEL, "evit", too_late)
