"""A point is given up only where it can be neither as fast nor as faithful as one that was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sweeps import DENSE, answers, row

from vitrim.recipes.sweep.dominate import MARGIN, clearly_worse, dominator, fastest
from vitrim.recipes.sweep.result import Row

GOOD = row("frugal", 0.5, 0.9, 0.1, 1.6)


def looked(ratio: float, agreement: float, kl: float, **more: Any) -> Row:
    return row("random", ratio, agreement, kl, answers=None, **more)


def test_no_point_is_faster_than_its_tokens_by_slicing_or_than_its_work() -> None:
    dearer = looked(0.7, 0.8, 0.5)
    assert fastest(dearer, [], DENSE) == pytest.approx(1 / (0.98 * 0.7))
    floor = MARGIN * 1.6 * 1.05
    assert fastest(dearer, [GOOD], 10 * DENSE) == pytest.approx(floor)
    cheaper = looked(0.25, 0.8, 0.5)
    assert fastest(cheaper, [GOOD], 10 * DENSE) == pytest.approx(2 * floor)
    assert fastest(looked(0.7, 0.8, 0.5, precision="int8"), [GOOD], DENSE) is None


def test_worse_and_slower_at_best_is_stopped_with_both_figures() -> None:
    words = dominator(looked(0.7, 0.6, 0.9), [GOOD], DENSE, True)
    assert words == (
        "frugal at 0.5 in fp32: 1.60 x, this 1.46 x at best; agreement 90.0 and 60.0 %, divergence 0.100 and 0.900 on "
        "64 images"
    )
    for other in (looked(0.5, 0.6, 0.9), looked(0.7, 0.89, 0.1), looked(0.7, 0.91, 0.9)):
        assert dominator(other, [GOOD], DENSE, True) is None
    assert dominator(row("r", 0.7, 0.6, 0.9, gmacs=None), [GOOD], DENSE, True) is None


def test_where_nothing_is_timed_gmacs_count() -> None:
    untimed = replace(GOOD, speed=None)
    words = dominator(looked(0.5, 0.6, 0.9), [untimed], DENSE, False)
    assert words is not None
    assert words.startswith("frugal at 0.5 in fp32: 0.625 GMACs, this 0.625; ")
    assert dominator(looked(0.4, 0.6, 0.9), [untimed], DENSE, False) is None


def test_a_first_look_is_float32_s_and_no_narrower_point_is_judged_by_it() -> None:
    narrow = row("frugal", 0.5, 0.9, 0.1, 1.6, precision="int8")
    assert dominator(looked(0.7, 0.6, 0.9), [narrow], DENSE, True) is None
    assert dominator(row("random", 0.7, 0.6, 0.9), [narrow], DENSE, True) is not None


def test_looks_at_other_images_are_not_held_against_each_other() -> None:
    assert dominator(looked(0.7, 0.6, 0.9, look=answers(0.6, 0.9, 32)), [GOOD], DENSE, True) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "worse"),
    [
        ((0.6, 0.5), (0.9, 0.5), True),  # the intervals of agreement are apart
        ((0.89, 0.5), (0.9, 0.1), True),  # those of divergence are
        ((0.89, 0.1), (0.9, 0.1), False),
        ((0.91, 0.5), (0.9, 0.1), False),  # agrees more, whatever the divergence
        ((0.9, 0.5), (0.9, 0.1), True),
    ],
)
def test_clearly_worse_is_beyond_an_interval(
    ours: tuple[float, float], theirs: tuple[float, float], worse: bool
) -> None:
    assert clearly_worse(answers(*ours), answers(*theirs)) == worse


def test_one_image_has_no_interval_of_divergence() -> None:
    one = replace(answers(1.0, 0.5, 1), kl_interval=None)
    assert not clearly_worse(one, answers(1.0, 0.1, 1))
