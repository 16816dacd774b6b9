"""Plans as numbers: the first one is said nearly, all others are legal at the cost, and changes stay within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import small_vit

from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.neighbours import Frame
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.calibration.tokens.space import AROUND, LIGHTEST, _apart, budget_of, changed, first_values, propose
from vitrim.exporter.pruning.budget import check_legal
from vitrim.exporter.pruning.shape import describe


def framed(method: str, share: float = 0.75, multiple: int = 1, depth: int = 6) -> Frame:
    shape = describe(small_vit(depth=depth))
    limit = share * model_macs(shape, dense_plan(shape))
    start = from_target(shape, method, {}, limit, default_rule(shape, method, {}), multiple)
    return Frame(shape, start, limit, multiple)


class Drawn:
    """An optimizer that draws anything, and notes the bounds."""

    def __init__(self, seed: int) -> None:
        self.generator, self.bounds = np.random.default_rng(seed), dict[str, tuple[float, float]]()

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.bounds[name] = (low, high)
        return int(self.generator.integers(low, high + 1))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.bounds[name] = (low, high)
        return float(self.generator.uniform(low, high))


@pytest.mark.parametrize("method", ["zero_tprune", "frugal", "evit", "tome"])
def test_the_first_plan_is_said_nearly(method: str) -> None:
    frame = framed(method)
    values = first_values(frame)
    found = budget_of(values, frame)
    assert found is not None
    assert [row.block for row in found.stages] == [row.block for row in frame.like.stages]
    assert np.abs(np.array(found.tokens) - frame.like.tokens).max() <= 1
    assert values["stages"] == len(frame.like.choosing)


@pytest.mark.parametrize("method", ["zero_tprune", "frugal", "evit", "tome"])
def test_nearly_all_numbers_are_a_legal_plan_within_the_cost(method: str) -> None:
    frame, found = framed(method), list[Any]()
    shape = frame.shape
    for seed in range(12):
        values = propose(Drawn(seed), frame)
        budget = budget_of(values, frame)
        assert budget == budget_of(values, frame)
        if budget is None:
            continue
        found.append(budget)
        assert total_macs(shape, budget) <= frame.limit
        check_legal(
            budget,
            depth=shape.depth,
            tokens=shape.tokens,
            prefix_tokens=shape.prefix_tokens,
            prefix_pooled=shape.prefix_pooled,
        )
    assert len(found) >= 10
    assert len({budget.tokens for budget in found}) > 3


def test_plans_keep_to_the_multiples_of_the_search() -> None:
    frame = framed("evit", 0.68, 2)
    found = [budget_of(propose(Drawn(seed), frame), frame) for seed in range(12)]
    after = [row.after % 2 for budget in found if budget is not None for row in budget.choosing]
    assert len(after) > 5
    assert set(after) == {0}


def test_changes_are_small_repeatable_and_within_the_bounds() -> None:
    frame = framed("frugal")
    values, bounds = first_values(frame), dict[str, tuple[float, float]]()
    for seed in range(8):
        drawn = Drawn(seed)
        propose(drawn, frame)
        bounds |= drawn.bounds
    assert bounds["parameter exponent"] == (frame.searched[0] / AROUND, frame.searched[0] * AROUND)
    assert bounds["weight 0"] == (LIGHTEST, 1.0)
    sizes = set()
    for seed in range(60):
        new = changed(values, frame, np.random.default_rng(seed))
        assert new == changed(values, frame, np.random.default_rng(seed))
        sizes.add(new["stages"])
        assert {f"{name} {index}" for name in ("block", "weight") for index in range(int(new["stages"]))} <= set(new)
        assert all(low <= new[name] <= high for name, (low, high) in bounds.items() if name in new)
        assert sum(new.get(name) != value for name, value in values.items()) <= 7
    assert len(sizes) > 1


@pytest.mark.parametrize(
    ("blocks", "apart"),
    [
        ([1, 3, 5], [1, 3, 5]),
        ([2, 2, 2], [2, 3, 4]),
        ([5, 5, 5], [3, 4, 5]),
        ([0, 0, 5], [0, 1, 5]),
        ([4, 5, 5], [3, 4, 5]),
    ],
)
def test_stages_that_share_a_block_go_apart(blocks: list[int], apart: list[int]) -> None:
    assert _apart(blocks, 6) == apart
