"""Benchmark statistics: what is claimed, and what is not. No timing is asserted."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.runtime.bench.interleave import environment, interleave, repeat, report, warm_up
from vitrim.exporter.runtime.bench.stats import median_interval, overlap, paired_ratio, summarize


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


def test_a_wider_precision_that_is_as_fast_is_said_to_be_the_one_to_take() -> None:
    taken = samples(10, 6, 0.1)
    taken["fp32"], taken["fp16"] = taken["pruned"] * 1.5, taken["pruned"] * 0.9
    result = report(taken, 1, {})
    assert result["ratios"]["over_fp32"] == {"median": 1.5, "interval": [1.5, 1.5], "pairs": 60}
    assert result["ratios"]["over_fp16"]["median"] == pytest.approx(0.9)
    assert result["claimed"]
    assert result["verdict"].startswith("1.")
    assert "no faster than the same graph in fp16 (0.90 times its speed" in result["verdict"]
    assert "take fp16" in result["verdict"]
    assert "fp32" not in result["verdict"]


def test_overlap_of_intervals() -> None:
    one, two, far = ({"median_interval": pair} for pair in ([1, 2], [2, 3], [2.5, 3]))
    assert overlap(one, two)
    assert not overlap(one, far)


def test_rounds_are_interleaved_and_nobody_always_follows_the_same() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    result = interleave(runs, rounds=60, warmup=0.0)
    assert {name: len(values) for name, values in result.items()} == {"a": 60, "b": 60, "c": 60}
    taken = "".join(order[-180:])
    assert all(set(taken[start : start + 3]) == set("abc") for start in range(0, 180, 3))
    after_c = [taken[place + 1] for place in range(179) if taken[place] == "c"]
    assert 15 < after_c.count("a") < 45


def test_too_few_rounds_claim_nothing() -> None:
    result = report({name: values[:5] for name, values in samples(10, 6, 0.1).items()}, 1, {})
    assert not result["claimed"]
    assert "5 rounds are too few" in result["verdict"]
    assert report({name: values[:6] for name, values in samples(10, 6, 0.1).items()}, 1, {})["claimed"]


def test_a_repeat_that_was_not_faster_claims_nothing() -> None:
    taken = samples(10, 6, 0.1)
    taken["dense"][40:] = 5.0
    taken["dense"][:40] = 20.0
    result = report(taken, 1, {}, repeats=[20, 20, 20])
    assert result["speedup_by_repeat"] == pytest.approx([20 / 6.05, 20 / 6.05, 5 / 6.05], rel=0.02)
    assert result["ratios"]["speedup"]["interval"][0] > 1
    assert not result["claimed"]
    assert "one repeat of 3 had a ratio of 0.8" in result["verdict"]
    assert report(samples(10, 6, 0.1), 1, {}, repeats=[20, 20, 20])["claimed"]


def test_repeats_make_everything_anew_and_keep_rounds_together() -> None:
    made: list[int] = []
    seen: list[tuple[int, int]] = []

    def make() -> dict[str, Callable[[], object]]:
        made.append(len(made))
        return {"a": lambda: None, "b": lambda: None}

    result, sizes = repeat(make, rounds=10, repeats=3, warmup=0.0, progress=lambda *at: seen.append(at))
    assert (made, sizes) == ([0, 1, 2], [4, 3, 3])
    assert {name: len(values) for name, values in result.items()} == {"a": 10, "b": 10}
    assert seen == [(done, 10) for done in range(1, 11)]
    assert repeat(make, rounds=2, repeats=3, warmup=0.0)[1] == [1, 1]


def test_warm_up_ends_even_where_times_never_settle() -> None:
    waits = iter(np.tile([0.0, 0.004], 10_000))
    began = time.perf_counter()
    warm_up(lambda: time.sleep(next(waits)), seconds=0.0)
    assert time.perf_counter() - began < 5


def test_environment_names_the_machine() -> None:
    found = environment(threads=2)
    assert found["threads"] == 2
    assert found["cpu"]
    assert found["cores"] >= 1
    assert "tensorrt" in found
