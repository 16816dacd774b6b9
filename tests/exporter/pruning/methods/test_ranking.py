"""The best of some scores: their order, ties, and how near the cut was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.pruning.methods.ranking import ascending, best_tokens, count_ahead, relative_gap


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12).flatmap(lambda n: st.lists(st.permutations(list(range(n))), min_size=1, max_size=3)),
    data=st.data(),
)
def test_the_best_patches_stand_as_they_rank_behind_the_prefix(rows: list[list[int]], data: st.DataObject) -> None:
    prefix = data.draw(st.integers(0, len(rows[0])))
    keep = data.draw(st.integers(prefix, len(rows[0])))
    found = best_tokens(torch.tensor(rows, dtype=torch.float32), keep, prefix)
    assert found.dtype == torch.int64
    for row, kept in zip(rows, found.tolist(), strict=True):
        best = sorted(range(prefix, len(row)), key=lambda place: -row[place])
        assert kept == [*range(prefix), *best[: keep - prefix]]


@settings(max_examples=40, deadline=None)
@given(scores=st.lists(st.integers(0, 3), min_size=1, max_size=12), data=st.data())
def test_among_ties_any_may_stay_but_none_that_is_worse(scores: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    (kept,) = best_tokens(torch.tensor([scores], dtype=torch.float32), keep, 0).tolist()
    assert len(set(kept)) == keep
    assert [scores[place] for place in kept] == sorted(scores, reverse=True)[:keep]


@settings(max_examples=40, deadline=None)
@given(scores=st.lists(st.sampled_from([-1e30, -3.0, 0.25, 0.5, 7.0]), min_size=1, max_size=12))
def test_counting_what_is_ahead_gives_every_token_a_rank_of_its_own(scores: list[float]) -> None:
    (found,) = count_ahead(torch.tensor([scores])).tolist()
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    assert [order.index(place) for place in range(len(scores))] == found


def test_positions_are_sorted_by_row_and_exact_beyond_any_token_count() -> None:
    assert ascending(torch.tensor([[3, 1, 2], [0, 9, 4]])).tolist() == [[1, 2, 3], [0, 4, 9]]
    large = torch.tensor([[32767, 0, 32766]])
    assert ascending(large).tolist() == [[0, 32766, 32767]]
    assert ascending(large).dtype == torch.int64


def test_the_gap_at_a_cut_is_relative_to_the_upper_side() -> None:
    scores = torch.tensor([[8.0, 6.0, 3.0, 3.0], [1.0, 0.5, -0.5, -1.0], [-1.0, -2.0, -3.0, -4.0]])
    assert relative_gap(scores, 1).tolist() == pytest.approx([0.25, 0.5, 1.0])
    assert relative_gap(scores, 2).tolist() == pytest.approx([0.5, 2.0, 0.5])
    assert relative_gap(scores, 3).tolist() == pytest.approx([0.0, 1.0, 1 / 3])  # a tie is 0


@pytest.mark.parametrize("cut", [0, 3, 4, -1])
def test_where_nothing_is_cut_there_is_no_gap(cut: int) -> None:
    assert relative_gap(torch.tensor([[3.0, 2.0, 1.0]] * 2), cut).tolist() == [float("inf")] * 2


def test_scores_of_zero_make_no_nan() -> None:
    assert relative_gap(torch.zeros(1, 4), 2).tolist() == [0.0]
