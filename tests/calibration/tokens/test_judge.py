"""Judging plans: what is not run again changes nothing, and what is clearly worse is given up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_vit

from vitrim.calibration.tokens import judge as judging
from vitrim.calibration.tokens.budgets import make_budget
from vitrim.calibration.tokens.judge import Judge, Verdict, agree_until
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT

IMAGES = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def plan(model: Any, method: str, stages: dict[int, int], **parameters: Any) -> Budget:
    return make_budget(describe(model), method, parameters, [StagePlan(at, patches=n) for at, n in stages.items()])


@torch.no_grad()
def whole_run(model: Any, budget: Budget) -> float:
    return fidelity(model(IMAGES).numpy(), PrunedViT(model, budget)(IMAGES).numpy(), None).kl


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_a_plan_is_judged_as_by_a_whole_run(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    monkeypatch.setattr(judging, "MEMORY", memory)
    monkeypatch.setattr(judging, "CLEARLY", float("inf"))
    model = small_vit(depth=6)
    first = plan(model, "frugal", {1: 13, 3: 10})
    judge = Judge(model, IMAGES, first, batch=5)
    assert judge.kl == pytest.approx(whole_run(model, first), rel=1e-3)
    for stages in ({1: 13, 4: 10}, {1: 13, 4: 9}, {0: 12, 4: 9}, {1: 13, 3: 10}):
        budget = plan(model, "frugal", stages)
        found = judge.judge(budget)
        assert found is not None
        assert found.kl == pytest.approx(whole_run(model, budget), rel=1e-3)
        judge.take(budget, found)
        assert (judge.best, judge.kl) == (budget, found.kl)


def test_only_blocks_from_the_first_difference_on_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vit(depth=6)
    judge = Judge(model, IMAGES, plan(model, "evit", {1: 13, 3: 10}), batch=12)
    ran: list[int] = []
    step = PrunedViT.step
    monkeypatch.setattr(PrunedViT, "step", lambda self, block, *state: ran.append(block) or step(self, block, *state))
    judge.judge(plan(model, "evit", {1: 13, 4: 10}))
    assert ran == [3, 4, 5]


def test_what_is_clearly_worse_is_given_up() -> None:
    model = small_vit(depth=6)
    judge = Judge(model, IMAGES, plan(model, "evit", {4: 15}), batch=3)
    assert judge.judge(plan(model, "evit", {0: 1})) is None
    again = judge.judge(plan(model, "evit", {4: 15}))
    assert again is not None
    np.testing.assert_allclose(again.kl, judge.kl, rtol=1e-6)


def test_better_is_what_chance_does_not_make_of_it() -> None:
    judge = Judge(small_vit(depth=6), IMAGES, plan(small_vit(depth=6), "evit", {4: 15}))
    own = judge.judge(judge.best)
    assert own is not None
    assert not judge.is_better(own)
    assert judge.is_better(Verdict(0.9 * own.values, {}))
    swing = np.where(np.arange(12) % 2, 1.0, -1.02)  # better on average by a hundredth of how much it varies
    assert not judge.is_better(Verdict(own.values + swing, {}))


def test_plans_agree_up_to_their_first_difference() -> None:
    model = small_vit(depth=6)
    one = plan(model, "frugal", {1: 13, 3: 10})
    assert agree_until(one, one) == 6
    assert agree_until(one, plan(model, "frugal", {1: 13, 3: 9})) == 3
    assert agree_until(one, plan(model, "frugal", {2: 13, 3: 10})) == 1
    assert agree_until(one, plan(model, "frugal", {1: 13, 3: 10}, exponent=0.5)) == 1
