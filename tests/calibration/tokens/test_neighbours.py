"""Plans beside a plan: legal, at the same cost, in multiples, and each by the change that its move names."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import small_vit

from vitrim.calibration.tokens.cost import Price, dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.neighbours import Frame, Move, Plan, kept_of, moves
from vitrim.calibration.tokens.rules import Rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.pruning.budget import Budget, check_legal
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import check_budget
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe

MODEL = small_vit(depth=8, img_size=128)
SHAPE = describe(MODEL)
MACS = 0.65 * model_macs(SHAPE, dense_plan(SHAPE))


def framed(method: str, multiple: int = 1, **parameters: Any) -> Frame:
    rule = Rule(tuple(StagePlan(block, similar=0.5) for block in (2, 4)), 2, final=True)
    return Frame(SHAPE, from_target(SHAPE, method, parameters, MACS, rule, multiple), MACS, multiple)


def blocks(plan: Plan | None) -> list[int]:
    assert plan is not None
    return [stage.block for stage in plan.stages]


@pytest.mark.parametrize(("method", "multiple"), [("zero_tprune", 1), ("frugal", 1), ("evit", 2), ("ppt", 1)])
def test_every_neighbour_is_a_plan_at_the_same_cost(method: str, multiple: int) -> None:
    frame = framed(method, multiple)
    first = frame.first()
    seen, kinds = set[Plan](), set[str]()
    for move in moves(first, frame):
        found = frame.apply(move, first, 4)
        if found is None:
            continue
        budget = frame.budget(found)
        check_legal(budget, depth=8, tokens=SHAPE.tokens, prefix_tokens=1, prefix_pooled=True)
        check_budget(get_method(method), budget)
        cost = total_macs(SHAPE, budget)
        assert 0.9 * MACS < cost <= MACS
        assert [row.after % multiple for row in budget.choosing] == [0] * len(budget.choosing)
        assert found != first
        assert budget.stages[-1].after == 1
        seen.add(found)
        kinds.add(move.kind)
    assert {"trade", "shift", "split", "join"} <= kinds
    assert ("share" in kinds) == (method == "zero_tprune")
    assert ("parameter" in kinds) == (method == "frugal")
    assert len(seen) >= 8


def test_neighbours_keep_to_any_price() -> None:
    def tokens(budget: Budget) -> float:
        return float(sum(row.after for row in budget.blocks))

    price, whole = Price(tokens, "tokens", 1.0, 8 * SHAPE.tokens, 8 * SHAPE.tokens), 8 * SHAPE.tokens
    rule = Rule((StagePlan(2), StagePlan(4)), final=True)
    start = from_target(SHAPE, "evit", {}, 0.6 * whole, rule, price=price)
    assert 0.58 * whole < tokens(start) <= 0.6 * whole
    frame = Frame(SHAPE, start, 0.6 * whole, price=price)
    plans = [frame.apply(move, frame.first(), 4) for move in moves(frame.first(), frame)]
    costs = [tokens(frame.budget(plan)) for plan in plans if plan is not None]
    assert len(costs) > 4
    assert max(costs) <= 0.6 * whole


def test_the_first_plan_is_the_rule_s_budget() -> None:
    frame = framed("zero_tprune")
    first = frame.first()
    assert frame.budget(first).blocks == frame.like.blocks
    assert blocks(first) == [2, 4]
    assert [stage.similar for stage in first.stages] == pytest.approx([0.5, 0.5], abs=0.1)
    assert (frame.final, frame.room, frame.iterations) == (True, 7, 2)


def test_a_move_changes_what_it_names() -> None:
    frame = framed("evit")
    first = frame.first()
    one, two = kept_of(first)
    traded = frame.apply(Move("trade", 0, 1, other=1), first, 4)
    assert traded is not None
    assert kept_of(traded)[0] == one + 4
    assert kept_of(traded)[1] < two
    assert blocks(frame.apply(Move("shift", 1, 1), first, 4)) == [2, 5]
    assert blocks(frame.apply(Move("split", 0, -1), first, 4)) == [1, 2, 4]
    assert blocks(frame.apply(Move("split", 0, 1), first, 4)) == [2, 3, 4]
    assert blocks(frame.apply(Move("join", 0, 1), first, 4)) == [4]
    assert blocks(frame.apply(Move("join", 0, -1), first, 4)) == [2]


def test_a_move_that_cannot_be_made_gives_no_plan() -> None:
    frame = framed("evit")
    first = frame.first()
    assert frame.apply(Move("trade", 0, -1, other=1), first, 64) is None  # no patch would be left
    assert frame.apply(Move("shift", 2), first, 4) is None  # there is no third stage
    late = Plan((StagePlan(5, patches=20), StagePlan(6, patches=10)))
    assert frame.apply(Move("shift", 1, 1), late, 4) is None  # the last block drops all
    assert frame.apply(Move("shift", 0, 1), late, 4) is None  # a stage is there


def test_parameters_are_scaled_and_stay_where_nothing_changes() -> None:
    frame = framed("frugal", exponent=1.5)
    first = frame.first()
    assert first.parameters == (1.5,)
    assert frame.budget(first).parameters == {"exponent": 1.5}
    grown = frame.apply(Move("parameter", 0, 1), first, 4)
    assert grown is not None
    assert frame.budget(grown).parameters["exponent"] == 2.0
    assert frame.apply(Move("parameter", 0, 1), Plan(first.stages, (3.9,)), 4) is None  # above what frugal takes


def test_a_plan_has_no_more_stages_than_four_or_its_first_one() -> None:
    frame = framed("evit")
    four = Plan(tuple(StagePlan(block, patches=50 - 10 * block) for block in (1, 2, 3, 4)))
    assert frame.most_stages == 4
    assert [frame.apply(Move("split", index, 1), four, 4) for index in range(4)] == [None] * 4
