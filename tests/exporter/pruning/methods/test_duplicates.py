"""Near-duplicates in numbers; the whole S-stage is held against loops in test_zero_tprune."""

from __future__ import annotations

import pytest
import torch

from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.duplicates import (
    OUTSIDE,
    among,
    best_matches,
    directions,
    duplicates,
    matches_by_comparison,
    root,
    worth_dropping,
)

Parameters = get_method("zero_tprune").Parameters
# A class token and four patches; by rank 3, 1, 4, 2. Patch 2 nearly equals patch 1, patch 4 is 0.6 like patch 3.
KEYS = torch.tensor([[[[9.0, 9.0], [2.0, 0.0], [1.0, 0.01], [0.0, 3.0], [0.8, 0.6]]]])
SCORES = torch.tensor([[7.0, 0.3, 0.1, 0.4, 0.2]])


def test_the_worse_half_looks_for_its_likes_in_the_better_one() -> None:
    unit = directions(KEYS)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(1, 5))
    found = best_matches(unit, torch.tensor([[3, 1, 4, 2]]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.99995]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("exponent", "gone"), [(0.0, 2), (4.0, 2)])
def test_what_has_the_nearest_duplicate_goes(exponent: float, gone: int) -> None:
    parameters = Parameters(exponent=exponent, heads="mean")
    kept, left, gaps = duplicates(directions(KEYS), SCORES, 1, 1, parameters)
    assert kept.tolist() == [[0, 3, 1, 4]]
    assert left.tolist() == [[gone]]
    assert all(float(gap) > 0 for gap in gaps)
    match = matches_by_comparison(KEYS, SCORES, 1, parameters)
    assert match.argmax(1).tolist() == [gone]
    assert match[0, [0, 1, 3]].tolist() == [pytest.approx(OUTSIDE)] * 3


def test_importance_weighs_on_the_scale_of_scores() -> None:
    cosine, scores = torch.tensor([0.5]), torch.tensor([0.25])
    assert worth_dropping(cosine, scores, Parameters(exponent=0)).item() == 0.5
    assert worth_dropping(cosine, scores, Parameters(exponent=1, heads="mean")).item() == pytest.approx(-0.125)
    assert worth_dropping(cosine, scores, Parameters(exponent=1)).item() == pytest.approx(-0.25)  # of squares
    assert root(scores, Parameters()).item() == 0.5
    assert root(scores, Parameters(heads="mean")).item() == 0.25


def test_positions_become_ones() -> None:
    assert among(torch.tensor([[3, 1]]), 5, torch.float32).tolist() == [[0.0, 1.0, 0.0, 1.0, 0.0]]
