"""The search: never worse than the rule, repeatable, within the cost, and on images of the whole source."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from helpers import small_vit, source_for

from vitrim.calibration.images.sources import ArrayImages
from vitrim.calibration.tokens import search as searching
from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.search import from_budget, mutate, search
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.pruning.budget import check_legal
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import check_budget
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe


def started(model: Any, method: str, share: float = 0.7) -> tuple[Any, float]:
    shape = describe(model)
    macs = share * model_macs(shape, dense_plan(shape))
    return from_target(shape, method, {}, macs, default_rule(shape, method, {})), macs


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zero_tprune", "frugal", "evit"])
def test_search_never_does_worse_and_is_repeatable(method: str) -> None:
    model = small_vit(depth=6)
    shape = describe(model)
    start, macs = started(model, method, 0.75 if method == "frugal" else 0.7)
    results = [search(model, source_for(model, 8), start, macs, 12, 3) for _ in range(2)]
    assert results[0].budget == results[1].budget
    assert results[0].kl_of_best <= results[0].kl_of_rule
    assert results[0].trials == 12
    assert model_macs(shape, results[0].budget.plan()) <= macs
    check_legal(
        results[0].budget,
        depth=shape.depth,
        tokens=shape.tokens,
        prefix_tokens=shape.prefix_tokens,
        prefix_pooled=shape.prefix_pooled,
    )
    check_budget(get_method(method), results[0].budget)


@pytest.mark.parametrize("multiple", [1, 2])
def test_a_search_keeps_to_the_multiples_that_it_began_with(multiple: int) -> None:
    model = small_vit(depth=6)
    shape = describe(model)
    macs = 0.7 * model_macs(shape, dense_plan(shape))
    start = from_target(shape, "evit", {}, macs, default_rule(shape, "evit", {}), multiple)
    assert start.statistics.get("multiple", 1) == multiple
    found = search(model, source_for(model, 4), start, macs, 12, 3)
    assert found.trials > 3
    for candidate in tuple({from_budget(found.budget), from_budget(start)}):
        budget = searching.to_budget(candidate, shape, start, macs, multiple)
        assert budget is not None
        assert [row.after % multiple for row in budget.stages[:-1]] == [0] * (len(budget.stages) - 1)
    assert [row.after % multiple for row in found.budget.stages[:-1]] == [0] * (len(found.budget.stages) - 1)


class Read(ArrayImages):
    """Images that remember which of them were asked for."""

    def read(self, index: int) -> np.ndarray:
        self.asked = [*getattr(self, "asked", []), index]
        return super().read(index)


def test_images_are_taken_evenly_and_no_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vit(depth=6)
    whole = source_for(model, 40)
    source = Read(whole.pixels, whole.labels, whole.preprocess, "noise")
    monkeypatch.setattr(searching, "LARGEST", 8)
    start, macs = started(model, "zero_tprune")
    found = search(model, source, start, macs, 1, 0)
    assert source.asked == [2, 7, 12, 17, 22, 27, 32, 37]  # a folder of class folders is in order of classes
    assert found.images == 8


def test_a_candidate_is_what_its_budget_says() -> None:
    model = small_vit(depth=6)
    stages = from_budget(started(model, "zero_tprune")[0])
    assert [stage.block for stage in stages] == [1, 3, 4]
    assert sum(stage.weight for stage in stages) == pytest.approx(3)
    assert all(0 <= stage.similar <= 1 for stage in stages)
    assert {stage.similar for stage in from_budget(started(model, "evit")[0])} == {0.0}


def test_mutations_stay_in_the_model_and_never_touch_what_a_method_lacks() -> None:
    stages = (StagePlan(1, weight=1.0, similar=0.5), StagePlan(3, weight=1.0, similar=0.5))
    draw, seen = random.Random(0), set()
    for _ in range(300):
        child = mutate(stages, 6, draw, with_similar=False)
        blocks = [stage.block for stage in child]
        assert blocks == sorted(set(blocks))
        assert all(0 <= block < 6 for block in blocks)
        assert {stage.similar for stage in child} == {0.5}
        assert 2 <= len(child) <= 4
        seen.add(child)
    assert len(seen) > 30
    assert any(stage.similar != 0.5 for _ in range(50) for stage in mutate(stages, 6, draw, with_similar=True))
