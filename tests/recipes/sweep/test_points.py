"""Which points there are, what their recipes say, and the order that stops most of them."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import small_recipe
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import FLOOR, METHODS
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.sweep.points import Point, grid, layers, recipe_for, shared_by_all
from vitrim.recipes.sweep.wanted import Wanted


def recipe(**sections: Any) -> Any:
    return recipe_from(small_recipe(**sections))


def test_all_methods_are_tried_but_slicing_which_is_timed_with_every_plan() -> None:
    found = grid(recipe(), Wanted(ratios=(0.7, 0.5)))
    assert [one.method for one in found[::2]] == [name for name in METHODS if name != FLOOR]
    assert [str(one) for one in found[:2]] == ["frugal at 0.5 in fp32", "frugal at 0.7 in fp32"]


def test_precisions_come_from_the_recipe_or_the_call_the_nearest_to_float32_first() -> None:
    few = Wanted(methods=("tome", "tome"), ratios=(0.5,), precisions=("int8", "fp32"))
    assert [one.precision for one in grid(recipe(), few)] == ["fp32", "int8"]
    own = grid(recipe(precision={"name": "int8"}), Wanted(methods=("tome",), ratios=(0.5,)))
    assert [one.precision for one in own] == ["int8"]
    auto = Wanted(methods=("tome",), ratios=(0.5,), precisions=("auto",))
    assert [one.precision for one in grid(recipe(), auto)] == ["fp32", "int8"]


@pytest.mark.parametrize(
    ("sections", "wanted", "words"),
    [
        ({}, {"methods": ("tomme",)}, "unknown pruning method 'tomme'.*did you mean"),
        ({}, {"precisions": ("int4",)}, "there is no precision 'int4'"),
        ({}, {"precisions": ("bf16",)}, "ort-cpu takes no bf16 graph"),
        ({"export": {"target": "cpu"}}, {}, "a sweep is of one target, and cpu is several .*export.target=ort-cpu"),
    ],
)
def test_what_there_is_not_is_refused(sections: dict[str, Any], wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        grid(recipe(**sections), Wanted(**wanted))


def test_a_point_s_recipe_keeps_what_is_its_own_method_s() -> None:
    base = recipe(prune={"method": "tome", "blocks": [1, 2], "multiple": 2})
    own, other = (recipe_for(base, Point(method, 0.6, "fp32")) for method in ("tome", "ppt"))
    assert own.prune is not None
    assert other.prune is not None
    assert (own.prune.method, own.prune.blocks, own.prune.multiple) == ("tome", [1, 2], 2)
    assert (other.prune.method, other.prune.blocks, other.prune.multiple) == ("ppt", None, 2)
    assert own.prune.target is not None
    assert own.prune.target.flops_ratio == 0.6
    assert own.model_dump(exclude={"prune"}) == base.model_dump(exclude={"prune"})
    narrow = recipe_for(base, Point("tome", 0.6, "int8"))
    assert (narrow.precision.name, narrow.precision.keep_slower) == ("int8", True)
    sliced = recipe_for(recipe(prune=None, slim={"target": {"flops_ratio": 0.8}}), Point("tome", 0.6, "fp32"))
    assert sliced.slim is not None
    assert sliced.prune is not None


def test_what_points_share_changes_with_the_recipe_but_not_with_its_budget() -> None:
    base = shared_by_all(recipe())
    assert shared_by_all(recipe(prune={"target": {"flops_ratio": 0.9}}, precision={"name": "int8"})) == base
    assert shared_by_all(recipe(bench={"runs": 6})) != base
    assert shared_by_all(recipe(prune={"final": False})) != base


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_no_point_comes_before_one_that_beats_it(costs: list[tuple[int, int]]) -> None:
    points = [Point("m", at / 100, "fp32") for at in range(len(costs))]
    of = {point: (float(a), float(b)) for point, (a, b) in zip(points, costs, strict=True)}
    ordered = list(layers(points, of))
    assert sorted(ordered, key=str) == sorted(points, key=str)
    for at, one in enumerate(ordered):
        for later in ordered[at + 1 :]:
            beats = of[later] != of[one] and all(a <= b for a, b in zip(of[later], of[one], strict=True))
            assert not beats
