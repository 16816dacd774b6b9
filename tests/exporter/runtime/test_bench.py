"""Benchmark statistics: what is claimed, and what is not. No timing is asserted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.runtime.bench import busy, environment, interleave, report
from vitrim.exporter.runtime.stats import median_interval, overlap, paired_ratio, summarize


def test_median_interval_is_the_sign_test_s() -> None:
    # For 20 samples the textbook 95 % interval runs from the 6th to the 15th order statistic.
    assert median_interval(np.arange(1, 21, dtype=float)) == (6.0, 15.0)
    assert median_interval(np.arange(1, 7, dtype=float)) == (1.0, 6.0)
    assert median_interval(np.array([3.0])) == (3.0, 3.0)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=300))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    low, high = median_interval(np.array(values))
    assert low <= np.median(values) <= high


def test_coverage_is_at_least_95_percent() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (median_interval(rng.standard_normal(25)) for _ in range(2000))]
    assert np.mean(hits) > 0.94


def test_percentiles_need_samples() -> None:
    assert not {"p90", "p95", "p99"} & set(summarize(np.arange(1, 20.0)))
    assert {"p90", "p95"} <= set(summarize(np.arange(1, 51.0)))
    assert "p99" not in summarize(np.arange(1, 51.0))
    many = summarize(np.arange(1, 1001.0))
    assert many["p99"] == pytest.approx(990.01)
    assert (many["median"], many["trimmed_mean"], many["min"], many["max"]) == (500.5, 500.5, 1.0, 1000.0)


def test_pairs_cancel_drift() -> None:
    drift = np.linspace(1, 3, 40)
    ratio = paired_ratio(2 * drift, drift)
    assert ratio == {"median": 2.0, "interval": [2.0, 2.0], "pairs": 40}


def samples(dense: float, pruned: float, noise: float, count: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "dense": dense + noise * rng.random(count),
        "pruned": pruned + noise * rng.random(count),
        "floor": pruned * 0.98 + noise * rng.random(count),
    }


def test_a_clear_speed_up_is_claimed() -> None:
    result = report(samples(10, 6, 0.1), 4, {})
    assert result["claimed"]
    assert result["speedup"] == pytest.approx(10 / 6, rel=0.02)
    assert result["overhead"] == pytest.approx(1 / 0.98, rel=0.02)
    assert result["images_per_second"]["pruned"] == pytest.approx(4000 / 6.05, rel=0.02)
    assert "times as fast as dense" in result["verdict"]


def test_overlapping_medians_claim_nothing() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1, 3, 60)
    result = report({"dense": drift * 10, "pruned": drift * 9.5 + 0.001 * rng.random(60)}, 1, {})
    assert result["ratios"]["speedup"]["interval"][0] > 1
    assert not result["claimed"]
    assert "overlap" in result["verdict"]
    assert result["overhead"] is None


def test_slower_and_unclear_are_said() -> None:
    assert report(samples(6, 10, 0.1), 1, {})["verdict"].startswith("slower than dense")
    assert "not measurably faster" in report(samples(10, 10, 1.0), 1, {})["verdict"]


def test_overlap_of_intervals() -> None:
    one, two, far = ({"median_interval": pair} for pair in ([1, 2], [2, 3], [2.5, 3]))
    assert overlap(one, two)
    assert not overlap(one, far)


def test_rounds_are_interleaved_and_rotate() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    result = interleave(runs, rounds=4, warmup=0.0)
    assert {name: len(values) for name, values in result.items()} == {"a": 4, "b": 4, "c": 4}
    assert "".join(order[-12:]) == "abc" + "bca" + "cab" + "abc"


def test_environment_warns_when_the_machine_is_busy() -> None:
    found = environment(threads=2)
    assert found["threads"] == 2
    assert found["cpu"]
    assert busy(found | {"load_average": [0.1, 0, 0], "cores": 4}) is None
    assert "busy (load average 3.0 on 4 cores)" in str(busy(found | {"load_average": [3.0, 0, 0], "cores": 4}))
