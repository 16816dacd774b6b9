"""Statistics of latencies that claim no more than the samples carry. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...core.records import Record, optional

FEWEST = 6  # samples for a 95 % interval of the median: with fewer not even the whole range covers it so often
# A percentile is given only from as many samples as leave about two beyond it.
_PERCENTILES = ((90, 20), (95, 40), (99, 200))


def median_interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the median from order statistics (sign test).

    Args:
        samples: [n], n at least 6 for 95 %; with fewer the whole range is returned.
    """
    ordered, count = np.sort(samples), len(samples)
    tail = (1 - confidence) / 2
    whole = math.lgamma(count + 1) - count * math.log(2)
    mass, rank = 0.0, 0
    while rank < count // 2:
        mass += math.exp(whole - math.lgamma(rank + 1) - math.lgamma(count - rank + 1))  # of Binomial(count, 1/2)
        if mass > tail:
            break
        rank += 1
    low = max(rank - 1, 0)
    return float(ordered[low]), float(ordered[count - 1 - low])


@dataclass(frozen=True)
class Distribution(Record):
    """Latencies of one graph, in milliseconds.

    Attributes:
        samples: how many.
        median, median_interval: with its 95 % interval, see `median_interval`.
        trimmed_mean: without 20 % of the samples, the fastest tenth and the slowest.
        iqr: between the quartiles.
        min, max: of all samples.
        p90, p95, p99: percentiles; None where there are too few samples for one.
    """

    samples: int
    median: float
    median_interval: tuple[float, float]
    trimmed_mean: float
    iqr: float
    min: float
    max: float
    p90: float | None = optional()
    p95: float | None = optional()
    p99: float | None = optional()

    def overlaps(self, other: Distribution) -> bool:
        """Whether the intervals of the two medians overlap."""
        (low, high), (least, most) = self.median_interval, other.median_interval
        return low <= most and least <= high


@dataclass(frozen=True)
class Ratio(Record):
    """Ratio of two graphs' latencies, round by round.

    Attributes:
        median: of the ratios.
        interval: its 95 % interval.
        pairs: rounds.
    """

    median: float
    interval: tuple[float, float]
    pairs: int

    @property
    def is_above_1(self) -> bool:
        """Whether all of the interval is: the graph in the denominator is faster."""
        return self.interval[0] > 1


def summarize(milliseconds: np.ndarray) -> Distribution:
    """The distribution of one graph's latencies, [n] in milliseconds."""
    ordered = np.sort(np.asarray(milliseconds, dtype=np.float64))
    count = len(ordered)
    cut = count // 10
    percentiles = {f"p{at}": float(np.percentile(ordered, at)) for at, least in _PERCENTILES if count >= least}
    return Distribution(
        samples=count,
        median=float(np.median(ordered)),
        median_interval=median_interval(ordered),
        trimmed_mean=float(ordered[cut : count - cut].mean()),
        iqr=float(np.quantile(ordered, 0.75) - np.quantile(ordered, 0.25)),
        min=float(ordered[0]),
        max=float(ordered[-1]),
        **percentiles,
    )


def paired_ratio(numerator: np.ndarray, denominator: np.ndarray) -> Ratio:
    """Median of the ratios of samples taken in the same round, with its interval."""
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    return Ratio(float(np.median(ratios)), median_interval(ratios), len(ratios))
