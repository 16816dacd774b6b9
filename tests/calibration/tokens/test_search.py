"""The search: never worse than the rule, repeatable, within the cost, and on images of the whole source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import small_vit, source_for

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.tokens import search as searching
from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.neighbours import Frame
from vitrim.calibration.tokens.rules import Rule, default_rule
from vitrim.calibration.tokens.search import search, steps
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.budget import check_legal
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import check_budget
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe


def started(model: Any, method: str, share: float = 0.7, multiple: int = 1) -> tuple[Any, float]:
    shape = describe(model)
    macs = share * model_macs(shape, dense_plan(shape))
    return from_target(shape, method, {}, macs, default_rule(shape, method, {}), multiple), macs


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zero_tprune", "frugal", "evit"])
def test_search_never_does_worse_and_is_repeatable(method: str) -> None:
    model = small_vit(depth=6)
    shape = describe(model)
    start, macs = started(model, method, 0.75 if method == "frugal" else 0.7)
    heard: list[tuple[int, int]] = []
    found = search(model, source_for(model, 8), start, macs, 12, lambda *done: heard.append(done))
    assert found == search(model, source_for(model, 8), start, macs, 12)
    assert found.kl_of_best <= found.kl_of_rule
    assert heard == [(done, 12) for done in range(1, found.judged + 1)]
    assert found.judged <= 12
    assert found.summary()["judged"] == found.judged
    assert total_macs(shape, found.budget) <= macs
    check_legal(
        found.budget,
        depth=shape.depth,
        tokens=shape.tokens,
        prefix_tokens=shape.prefix_tokens,
        prefix_pooled=shape.prefix_pooled,
    )
    check_budget(get_method(method), found.budget)


def test_a_bad_plan_becomes_a_better_one() -> None:
    model = small_vit(depth=6, global_pool="avg")
    shape = describe(model)
    macs = 0.85 * model_macs(shape, dense_plan(shape))
    start = from_target(shape, "evit", {}, macs, Rule((StagePlan(0),)))
    found = search(model, source_for(model, 16), start, macs, 8)
    assert found.budget != start
    assert found.kl_of_best < found.kl_of_rule


@pytest.mark.parametrize("multiple", [1, 2])
def test_a_search_keeps_to_the_multiples_that_it_began_with(multiple: int) -> None:
    model = small_vit(depth=6)
    start, macs = started(model, "evit", 0.68, multiple)
    assert start.statistics.get("multiple", 1) == multiple
    found = search(model, source_for(model, 4), start, macs, 12)
    assert found.judged > 3
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
    found = search(model, source, start, macs, 1)
    assert source.asked == [2, 7, 12, 17, 22, 27, 32, 37]  # a folder of class folders is in order of classes
    assert (found.images, found.judged) == (8, 1)


def test_trades_get_smaller_and_keep_to_multiples() -> None:
    model = small_vit(depth=6, img_size=128)
    start, macs = started(model, "evit")
    shape = describe(model)
    assert shape.tokens == 65
    assert steps(Frame(shape, start, macs)) == [5, 2]
    assert steps(Frame(shape, start, macs, 4)) == [4]
    assert steps(Frame(shape, start, macs, 8)) == [8]


def test_what_removes_nothing_cannot_be_searched() -> None:
    model = small_vit()
    start, macs = started(model, "evit")
    last = start.blocks[-1]
    whole = [row.model_copy(update={"before": 17, "after": 17}) for row in start.blocks]
    whole[-1] = last.model_copy(update={"before": 17})
    with pytest.raises(InputError, match=r"prune\.search needs a budget that prunes"):
        search(model, source_for(model, 4), start.model_copy(update={"blocks": tuple(whole)}), macs, 3)
