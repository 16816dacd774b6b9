"""Intervals hold what they say, of shares, means and paired changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.core.intervals import change_interval, mcnemar, mean_interval, share_interval


def test_shares_have_wilson_s_interval() -> None:
    # From Wilson's formula, worked by hand for 8 of 10 and for the ends.
    assert share_interval(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert share_interval(1.0, 4) == pytest.approx((0.5101092, 1.0), abs=1e-6)
    assert share_interval(0.0, 4) == pytest.approx((0.0, 0.4898908), abs=1e-6)
    found = Fidelity(images=10, agreement=0.8, kl=0.1, accuracy_dense=1.0, accuracy_pruned=0.5)
    assert found.agreement_interval == share_interval(0.8, 10)
    assert found.accuracy_dense_interval == share_interval(1.0, 10)
    assert found.accuracy_pruned_interval == share_interval(0.5, 10)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(3)
    hits = [low <= 0.9 <= high for low, high in (share_interval(draw.binomial(40, 0.9) / 40, 40) for _ in range(4000))]
    assert 0.93 < np.mean(hits) < 0.98


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (5, 1), (1, 5), (7, 7), (20, 9), (0, 60)])
def test_mcnemar_is_the_sign_test_of_the_images_that_turned(lost: int, won: int) -> None:
    turned = lost + won
    chances = [math.comb(turned, wins) / 2**turned for wins in range(turned + 1)]
    expected = sum(chance for chance in chances if chance <= chances[won] * (1 + 1e-12))
    assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(3000, 2800) == pytest.approx(0.0089, abs=2e-4)  # normal: z = 199 / sqrt(5800)


@given(st.lists(st.floats(0, 20), min_size=2, max_size=40), st.randoms())
def test_a_mean_does_not_depend_on_the_order_to_the_last_bit(values: list[float], chance: Any) -> None:
    other = chance.sample(values, len(values))
    assert mean_interval(values) == mean_interval(other)
    mean, interval = mean_interval(values)
    assert interval is not None
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    half = 1.959963984540054 * np.std(values, ddof=1) / len(values) ** 0.5
    assert interval == pytest.approx((mean - half, mean + half), abs=1e-9)


def test_the_change_of_accuracy_has_a_paired_interval() -> None:
    turns = np.repeat([-1.0, 1.0, 0.0], [9, 4, 87])
    half = 1.959963984540054 * turns.std() / 10
    assert change_interval(9, 4, 100) == pytest.approx((-0.05 - half, -0.05 + half), abs=0.008)
    more = np.repeat([-1.0, 1.0, 0.0], [10, 5, 87])  # one each way, that few images do not seem to be sure
    half = 1.959963984540054 * more.std() / 102**0.5
    assert change_interval(9, 4, 100) == pytest.approx((more.mean() - half, more.mean() + half))
    assert change_interval(0, 0, 10) == pytest.approx((-0.2309, 0.2309), abs=1e-4)
    assert change_interval(1, 0, 1)[0] == -1
