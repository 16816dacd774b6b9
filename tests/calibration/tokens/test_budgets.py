"""Budgets from sizes that are given: published plans, counts and rates by hand."""

from __future__ import annotations

import pytest

from vitrim.calibration.tokens.budgets import from_counts, from_keep_rates, from_preset, make_budget, scaled, spread
from vitrim.calibration.tokens.presets import get_preset
from vitrim.calibration.tokens.rules import default_rule
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import ViTShape, describe


@pytest.fixture(scope="module")
def tiny() -> ViTShape:
    return describe(create_model("deit_tiny_patch16_224", random=0))


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


def test_keep_rates_truncate_and_evit_rounds_up(tiny: ViTShape) -> None:
    zero = from_keep_rates(tiny, "zero_tprune", {}, {3: 0.7, 6: 0.7})
    assert [row.after for row in zero.stages] == [138, 96]
    evit = from_keep_rates(tiny, "evit", {}, {3: 0.7, 6: 0.7})
    assert [row.after for row in evit.stages] == [139, 98]
    with pytest.raises(InputError, match="names block 12"):
        from_keep_rates(tiny, "evit", {}, {12: 0.5})
    with pytest.raises(InputError, match="leaves none"):
        from_keep_rates(tiny, "zero_tprune", {}, {3: 0.001})


def test_a_preset_is_scaled_to_the_depth_or_refused() -> None:
    thirds = get_preset("evit-0.7").stages
    assert [stage.block for stage in scaled(thirds, 12)] == [3, 6, 9]
    assert [stage.block for stage in scaled(thirds, 24)] == [6, 13, 19]
    assert [stage.block for stage in scaled(get_preset("tome-8").stages, 6)] == [0, 1, 2, 3, 4, 5]
    six = describe(create_model("deit_tiny_patch16_224", args={"depth": 6}, random=0))
    with pytest.raises(InputError, match="more stages than a model of 6 blocks has room for"):
        from_preset(six, get_preset("precursor-989999"))
    with pytest.raises(InputError, match=r"there is no preset 'evit-0\.75'; did you mean evit-0\.\d\?"):
        get_preset("evit-0.75")


def test_a_similarity_count_of_a_preset_is_at_most_a_quarter_of_the_patches() -> None:
    small = describe(create_model("deit_tiny_patch16_224", args={"img_size": 96}, random=0))  # 36 patches
    rows = from_preset(small, get_preset("zero-tprune")).stages
    assert [(row.block, row.after, row.options["similar"]) for row in rows] == [
        (0, 28, 9), (2, 19, 6), (5, 12, 4), (8, 7, 2), (10, 6, 1)
    ]  # fmt: skip


def test_a_stage_must_be_sized_and_one_that_removes_nothing_is_left_out(tiny: ViTShape) -> None:
    with pytest.raises(AssertionError, match="the stage at block 3 has no size yet"):
        make_budget(tiny, "evit", {}, [StagePlan(3)])
    assert make_budget(tiny, "evit", {}, [StagePlan(3, 196)]).stages == ()
