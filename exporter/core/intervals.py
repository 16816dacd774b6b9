"""Intervals of 95 %: of a share, of a mean, of a paired change; and the sign test of those that turned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Interval = tuple[float, float]
Z95 = 1.959963984540054  # standard deviations on each side of a normal interval of 95 %


def share_interval(share: float, count: int) -> Interval:
    """Wilson's 95 % interval of a share that was counted on `count` images; it holds at 0 and 1, and for few."""
    square = Z95**2 / count
    middle = share + square / 2
    spread = Z95 * math.sqrt(share * (1 - share) / count + square / count / 4)
    return max((middle - spread) / (1 + square), 0.0), min((middle + spread) / (1 + square), 1.0)


def mean_interval(values: Sequence[float]) -> tuple[float, Interval | None]:
    """Mean of at least one value, and its normal 95 % interval, None for one.

    Sums are exact before they are rounded once, so the order of the values does not matter to the last bit.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    spread = Z95 * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return mean, (mean - spread, mean + spread)


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p: how likely images that turned are divided this unevenly if pruning costs nothing.

    Args:
        lost: images that only the dense model has right.
        won: images that only the pruned one has right.
    """
    turned, ways, tail = lost + won, 1, 0
    for wins in range(min(lost, won) + 1):
        tail += ways
        ways = ways * (turned - wins) // (wins + 1)
    return min(1.0, 2 * tail / 2**turned)


def change_interval(lost: int, won: int, count: int) -> Interval:
    """95 % interval of pruned less dense accuracy on the same images: Bonett and Price's, with an image more each way.

    So it says something of few images too: where none turned, the normal interval would be a point.
    """
    more, images = (lost + 1) / (count + 2), count + 2
    change = (won - lost) / images
    spread = Z95 * math.sqrt(max(more + (won + 1) / images - change**2, 0.0) / images)
    return max(change - spread, -1.0), min(change + spread, 1.0)
