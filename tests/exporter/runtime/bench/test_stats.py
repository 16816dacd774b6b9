"""Statistics of latencies: intervals, percentiles, ratios."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.runtime.bench.stats import Distribution, Ratio, median_interval, paired_ratio, summarize


def test_median_interval_is_the_sign_test_s() -> None:
    # For 20 samples the textbook 95 % interval runs from the 6th to the 15th order statistic.
    assert median_interval(np.arange(1, 21, dtype=float)) == (6.0, 15.0)
    assert median_interval(np.arange(1, 7, dtype=float)) == (1.0, 6.0)
    assert median_interval(np.array([3.0])) == (3.0, 3.0)
    # From binomial tables: 40 of 100 and 469 of 1000; large counts neither overflow nor take long.
    assert median_interval(np.arange(1, 101, dtype=float)) == (40.0, 61.0)
    assert median_interval(np.arange(1, 1001, dtype=float)) == (469.0, 532.0)
    low, high = median_interval(np.arange(1, 100_001, dtype=float))
    assert (low + high) / 2 == 50_000.5
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(100_000) / 2, rel=0.01)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=300))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(np.array(values))
    assert low <= np.median(values) <= high


def test_coverage_is_at_least_95_percent() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (median_interval(rng.standard_normal(25)) for _ in range(2000))]
    assert np.mean(hits) > 0.94


def test_percentiles_need_samples() -> None:
    few, some = summarize(np.arange(1, 20.0)), summarize(np.arange(1, 51.0))
    assert (few.p90, few.p95, few.p99) == (None, None, None)
    assert (some.p90, some.p95, some.p99) == (pytest.approx(45.1), pytest.approx(47.55), None)
    assert not {"p90", "p95", "p99"} & set(few.to_json())
    many = summarize(np.arange(1, 1001.0))
    assert many.p99 == pytest.approx(990.01)
    assert (many.median, many.trimmed_mean, many.min, many.max) == (500.5, 500.5, 1.0, 1000.0)


def test_pairs_cancel_drift() -> None:
    drift = np.linspace(1, 3, 40)
    ratio = paired_ratio(2 * drift, drift)
    assert ratio == Ratio(median=2.0, interval=(2.0, 2.0), pairs=40)
    assert ratio.is_above_1
    assert not Ratio(1.1, (1.0, 1.2), 40).is_above_1


def test_overlap_of_intervals() -> None:
    base = summarize(np.arange(1.0, 10.0))
    one, two, far = (replace(base, median_interval=pair) for pair in ((1.0, 2.0), (2.0, 3.0), (2.5, 3.0)))
    assert one.overlaps(two)
    assert two.overlaps(one)
    assert not one.overlaps(far)
    assert not far.overlaps(one)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=300))
def test_a_distribution_comes_back_from_json_equal(values: list[float]) -> None:
    found = summarize(np.array(values))
    assert Distribution.from_json(json.loads(json.dumps(found.to_json())), "d") == found
