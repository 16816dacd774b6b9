"""The cheapest plan that holds: found by halving, counted against the dense answers, and nothing where none holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import budget_for, small_vit, source_for
from hypothesis import given
from hypothesis import strategies as st

from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens import outcome
from vitrim.calibration.tokens.outcome import DenseAnswers, cheapest
from vitrim.exporter.core.fidelity import Fidelity, fidelity
from vitrim.exporter.core.outcome import AGREEMENT, best_of
from vitrim.exporter.pruning.budget import Budget, parse_budget
from vitrim.exporter.pruning.vit import PrunedViT

WHOLE, LEAST = 1000, 200


def plan(macs: float) -> Budget:
    """A budget that stands for a cost."""
    row = {"block": 0, "before": WHOLE + 1, "after": int(macs)}
    return parse_budget({"method": "uniform", "prefix_tokens": 0, "blocks": [row]})


def holding_from(edge: float) -> Any:
    """Answers that are the dense model's from a cost on, and none below."""

    def answers(budget: Budget) -> Fidelity:
        return Fidelity(500, float(budget.tokens[0] >= edge), 0.0)

    return answers


@given(st.floats(LEAST, WHOLE))
def test_it_is_found_as_finely_as_it_is_looked_for(edge: float) -> None:
    found, tried = cheapest(plan, holding_from(edge), AGREEMENT, 0.97, (LEAST, WHOLE))
    assert found is not None
    assert edge <= found.budget.tokens[0] <= edge + outcome.FINE * WHOLE + 1 or found.macs == LEAST
    assert [point.macs for point in tried] == sorted(point.macs for point in tried)
    assert len(tried) <= 9
    assert all(point.answers.agreement == 0 for point in tried if point.macs < found.macs)


def test_the_cheapest_of_all_and_none_of_them() -> None:
    found, _ = cheapest(plan, holding_from(0), AGREEMENT, 0.97, (LEAST, WHOLE))
    assert found is not None
    assert found.macs == LEAST
    found, tried = cheapest(plan, holding_from(WHOLE + 1), AGREEMENT, 0.97, (LEAST, WHOLE))
    assert found is None
    assert [point.macs for point in tried] == [WHOLE]


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_answers_are_held_against_the_dense_model_s(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    monkeypatch.setattr(outcome, "MEMORY", memory)
    model = small_vit()
    source, budget = source_for(model, 10), budget_for(model, {1: 9, 2: 5})
    heard: list[tuple[int, int]] = []
    answers = DenseAnswers(model, model, source, 4, lambda *done: heard.append(done))
    with torch.inference_mode():
        images = torch.from_numpy(read_all(source))
        dense, pruned = model(images).numpy(), PrunedViT(model, budget)(images).numpy()
    found, wanted = answers.held_against(budget), fidelity(dense, pruned, source.labels)
    assert (found.agreement, found.lost, found.won) == (wanted.agreement, wanted.lost, wanted.won)
    assert found.kl == pytest.approx(wanted.kl, rel=1e-4)
    assert heard == [(4, 10), (8, 10), (10, 10)]
    assert answers.held_against(budget_for(model, {})).agreement == best_of(AGREEMENT, 10).value
