"""Answers agree where a loop says so: ties, neighbours, and what is expected of images like these."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.answers import (
    FEATURES,
    LOGITS,
    expected_agreement,
    same_neighbour,
    same_top,
    similarities,
    task_of,
)
from vitrim.exporter.core.fidelity import fidelity


def test_expected_agreement_tries_every_change_on_every_gap() -> None:
    draw = np.random.default_rng(0)
    reference = draw.standard_normal((40, 6)).astype(np.float32)
    logits = reference + 0.3 * draw.standard_normal((40, 6)).astype(np.float32)
    turned = 0
    for one in reference:
        gap = np.sort(one)[-1] - np.sort(one)[-2]
        for other, theirs in zip(reference, logits, strict=True):
            first, second = np.argsort(-other)[:2]
            change = (theirs[first] - theirs[second]) - (other[first] - other[second])
            turned += gap + change < 0
    assert expected_agreement(reference, logits) == pytest.approx(1 - turned / 1600, abs=1e-9)


def test_a_tie_at_the_top_is_no_answer() -> None:
    dense = np.array([[3.0, 1, 0], [2, 2, 0], [0, 1, 5], [4, 0, 0]])
    other = np.array([[3.0, 3, 0], [9, 2, 0], [0, 1, 1.5], [0, 0, 0]])
    assert same_top(dense, other).tolist() == [False, True, True, False]
    assert fidelity(dense, other, None).agreement == 0.5
    assert fidelity(dense, np.zeros((4, 3)), None).agreement == 0


def test_it_is_1_where_nothing_changes_and_close_to_what_many_images_count() -> None:
    draw = np.random.default_rng(1)
    reference = draw.standard_normal((4000, 2))
    assert expected_agreement(reference, reference) == 1
    logits = reference + 0.2 * draw.standard_normal((4000, 2))
    counted = fidelity(reference, logits, None).agreement
    assert 0.85 < counted < 0.97
    few = [expected_agreement(reference[i : i + 100], logits[i : i + 100]) for i in range(0, 4000, 100)]
    counts = [fidelity(reference[i : i + 100], logits[i : i + 100], None).agreement for i in range(0, 4000, 100)]
    assert np.mean(few) == pytest.approx(counted, abs=0.01)
    assert np.std(few) < 0.8 * np.std(counts)  # steadier on a hundred images


def nearest_by_loop(features: np.ndarray) -> list[int]:
    found = []
    for i, a in enumerate(features):
        others = [(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -j) for j, b in enumerate(features) if j != i]
        found.append(-max(others)[1])
    return found


@given(st.integers(0, 10_000), st.integers(3, 12), st.sampled_from([0.0, 0.5, 2.0]))
def test_neighbours_agree_where_a_loop_finds_the_same_ones(seed: int, count: int, noise: float) -> None:
    draw = np.random.default_rng(seed)
    dense = draw.standard_normal((count, 6))
    pruned = dense + noise * draw.standard_normal((count, 6))
    expected = [a == b for a, b in zip(nearest_by_loop(dense), nearest_by_loop(pruned), strict=True)]
    assert same_neighbour(dense, pruned).tolist() == expected
    assert same_neighbour(dense, 3 * dense).all()  # a cosine knows no lengths


def test_neighbours_of_many_images_are_looked_for_among_all_of_them() -> None:
    dense = np.random.default_rng(1).standard_normal((1030, 4))  # more than are compared at once
    pruned = dense.copy()
    pruned[1029] = dense[0] + 0.01
    same, whole = same_neighbour(dense, pruned), similarities(dense).argmax(1)
    moved = similarities(pruned).argmax(1)
    assert same.tolist() == (whole == moved).tolist()
    assert not same[1029]


def test_an_image_that_is_there_twice_may_be_found_as_either() -> None:
    draw = np.random.default_rng(2)
    once = draw.standard_normal((600, 48)).astype(np.float32)
    dense = np.concatenate([once, once])
    assert same_neighbour(dense, dense.copy()).all()
    shuffled = dense[:, draw.permutation(48)]  # the same cosines, summed in another order
    assert same_neighbour(dense, shuffled).mean() > 0.999


def test_a_constant_has_no_neighbours() -> None:
    dense = np.random.default_rng(0).standard_normal((5, 4))
    assert not same_neighbour(dense, np.ones((5, 4))).any()
    assert not same_neighbour(dense, np.zeros((5, 4))).any()


def test_a_graph_tells_its_task_by_its_outputs() -> None:
    assert task_of({"features": 1, "kept_3": 2}) is FEATURES
    assert task_of(["logits"]) is task_of([]) is LOGITS


def test_what_is_expected_of_features_is_one_for_themselves() -> None:
    dense = np.random.default_rng(0).standard_normal((12, 5))
    assert FEATURES.expected(dense, 2 * dense) == 1.0
    assert FEATURES.expected(dense, np.random.default_rng(1).standard_normal((12, 5))) < 0.9
