"""Statistics of latencies that claim no more than the samples carry. Torch-free."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FEWEST = 6  # samples for a 95 % interval of the median: with fewer not even the whole range covers it so often
# A percentile is told only from as many samples as leave about two beyond it.
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


def summarize(milliseconds: np.ndarray) -> dict[str, Any]:
    """The distribution of one graph's latencies, in milliseconds.

    The trimmed mean leaves out 20 % of the samples: the fastest tenth and the slowest.
    """
    ordered = np.sort(np.asarray(milliseconds, dtype=np.float64))
    cut = len(ordered) // 10
    low, high = median_interval(ordered)
    result: dict[str, Any] = {
        "samples": len(ordered),
        "median": float(np.median(ordered)),
        "median_interval": [low, high],
        "trimmed_mean": float(ordered[cut : len(ordered) - cut].mean()),
        "iqr": float(np.quantile(ordered, 0.75) - np.quantile(ordered, 0.25)),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
    }
    for percentile, least in _PERCENTILES:
        if len(ordered) >= least:
            result[f"p{percentile}"] = float(np.percentile(ordered, percentile))
    return result


def paired_ratio(numerator: np.ndarray, denominator: np.ndarray) -> dict[str, Any]:
    """Median of the ratios of samples taken in the same round, with its interval."""
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    low, high = median_interval(ratios)
    return {"median": float(np.median(ratios)), "interval": [low, high], "pairs": len(ratios)}


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the intervals of two medians overlap."""
    (low_a, high_a), (low_b, high_b) = a["median_interval"], b["median_interval"]
    return bool(low_a <= high_b and low_b <= high_a)
