"""PageRank on the attention matrix against numpy's power iteration, and the filter of heads on the mean-1 scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import attention_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.pruning.methods.page_rank import (
    head_weights,
    initial_scores,
    page_rank,
    variance_gap,
    weighted_sum,
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(2, 12),
    rounds=st.integers(0, 8),
    boost=st.booleans(),
    dead=st.data(),
)
def test_equals_power_iteration_of_the_survivors(
    seed: int, tokens: int, rounds: int, boost: bool, dead: st.DataObject
) -> None:
    attention = attention_of(seed, 2, 3, tokens)
    gone = dead.draw(st.sets(st.integers(1, tokens - 1), max_size=tokens - 1))
    alive = torch.tensor([token not in gone for token in range(tokens)], dtype=torch.float64).view(1, 1, 1, -1)
    found = page_rank(attention, initial_scores(tokens, boost, attention) * alive, rounds, alive if gone else None)
    left = [token for token in range(tokens) if token not in gone]
    for image in range(2):
        for head in range(3):
            votes = attention[image, head].numpy()[np.ix_(left, left)].T  # column i: what token i gives away
            score = np.ones(len(left))
            score[0] = math.sqrt(tokens) if boost else 1.0
            for _ in range(rounds):
                score = votes @ score
            expected = np.zeros(tokens)
            expected[left] = score
            row = found if rounds else found.expand(2, 3, 1, tokens)
            np.testing.assert_allclose(row[image, head, 0].numpy(), expected, atol=1e-12)


def test_many_rounds_reach_the_dominant_eigenvector() -> None:
    attention = attention_of(8, sharp=1.0)
    found = page_rank(attention, initial_scores(17, False, attention), 200)
    for head in range(3):
        values, vectors = np.linalg.eig(attention[0, head].numpy().T)
        first = np.real(vectors[:, np.argmax(np.real(values))])
        np.testing.assert_allclose(found[0, head, 0].numpy(), first / first.sum() * 17, rtol=1e-8)


def test_trap_1_votes_flow_along_columns() -> None:
    """With A s instead of A^T s a uniform start would tie for ever, as rows sum to 1."""
    attention = attention_of(1)
    start = initial_scores(17, False, attention)
    once = page_rank(attention, start, 1)
    torch.testing.assert_close(once, attention.mean(2, keepdim=True) * 17)  # one round from uniform = column means
    assert once.std(-1).min() > 0.1
    wrong = page_rank(attention.transpose(2, 3), start, 1)
    assert wrong.std(-1).max() < 1e-9


@pytest.mark.parametrize("iterations", [1, 5, 30])
def test_votes_are_conserved_on_the_whole_graph(iterations: int) -> None:
    attention = attention_of(2)
    start = initial_scores(17, True, attention)
    assert start[0, 0, 0, 0].item() == pytest.approx(math.sqrt(17))
    total = page_rank(attention, start, iterations).sum(-1)
    torch.testing.assert_close(total, torch.full_like(total, 16 + math.sqrt(17)))


def test_a_masked_graph_is_the_gathered_submatrix() -> None:
    attention = attention_of(3)
    alive = torch.ones(17, dtype=torch.bool)
    alive[[2, 5, 11]] = False
    start = initial_scores(17, True, attention)
    masked = page_rank(attention, start * alive, 7, alive.double().view(1, 1, 1, -1))
    gathered = page_rank(attention[:, :, alive][..., alive], start[..., alive], 7)
    torch.testing.assert_close(masked[..., alive], gathered)
    assert masked[..., ~alive].abs().max() == 0


def test_trap_2_the_variance_is_measured_on_the_mean_1_scale() -> None:
    """On the sum-1 scale no variance reaches 0.01 with 197 tokens, so every head would be rejected."""
    scores = page_rank(
        attention_of(4, heads=6, tokens=197, sharp=1.0),
        initial_scores(197, False, torch.ones(1, dtype=torch.float64)),
        1,
    )
    sum_one = scores / scores.sum(-1, keepdim=True)
    assert (sum_one.var(-1, unbiased=False) < 0.01).all()
    _, variance = head_weights(sum_one, 0, 197, (0.01, 0.7))
    expected = (scores / scores.mean(-1, keepdim=True)).var(-1, unbiased=False)
    torch.testing.assert_close(variance.squeeze(-1), expected)
    middle = float(expected.median())
    weights, _ = head_weights(scores, 0, 197, (0.0, middle))
    assert weights.round().flatten().tolist() == (expected <= middle).double().flatten().tolist()
    assert 0 < float(weights.mean()) < 1


def test_heads_are_weighed_by_the_variance_of_living_patches() -> None:
    """Three heads: even, lively and wild; the prefix token and a dead patch count for nothing."""
    rows = [[9.0, 1.0, 1.0, 1.0, 0.0], [9.0, 1.0, 2.0, 3.0, 0.0], [9.0, 0.1, 0.1, 5.8, 0.0]]
    scores = torch.tensor(rows, dtype=torch.float64).view(1, 3, 1, 5)
    weights, variance = head_weights(scores, 1, 3, (0.01, 0.7))
    expected = [np.var(np.array(row[1:4]) / np.mean(row[1:4])) for row in rows]
    np.testing.assert_allclose(variance.flatten().numpy(), expected, atol=1e-12)
    assert weights.flatten().tolist() == pytest.approx([1e-9, 1.0, 1e-9], rel=1e-6)
    assert (weights.shape, variance.shape) == ((1, 3, 1, 1), (1, 3, 1, 1))


def test_heads_summed_one_by_one_are_the_weighted_sum() -> None:
    scores = page_rank(
        attention_of(8, batch=3, heads=5), initial_scores(17, True, torch.ones(1, dtype=torch.float64)), 2
    )
    middle = float(head_weights(scores, 1, 16, (0.0, 1.0))[1].median())
    weights, variance = head_weights(scores, 1, 16, (0.0, middle))
    assert 0.1 < float(weights.mean()) < 0.9
    total, *others = weighted_sum(scores, scores.square(), 1, 16, (0.0, middle))
    torch.testing.assert_close(total, (weights * scores.square()).sum(1, keepdim=True))
    torch.testing.assert_close(others, [weights, variance])


def test_the_gap_is_that_of_the_variance_nearest_to_a_limit() -> None:
    variance = torch.tensor([[0.02, 0.5, 0.69], [0.3, 0.4, 3.0]], dtype=torch.float64).view(2, 3, 1, 1)
    gap = variance_gap(variance, (0.01, 0.7))
    assert gap is not None
    assert gap.tolist() == pytest.approx([0.01 / 0.7, 0.3 / 0.7])
    assert variance_gap(None, (0.01, 0.7)) is None
    assert variance_gap(variance, None) is None
