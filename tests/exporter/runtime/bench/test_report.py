"""Benchmarks: what is claimed, and what is not; what goes to JSON, and files of vitrim 0.1.0. No timing is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.report import LATER, Bench, TimedBundle, Untimed, report
from vitrim.exporter.runtime.bench.stats import Ratio, summarize

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


def samples(dense: float, pruned: float, noise: float, count: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "dense": dense + noise * rng.random(count),
        "pruned": pruned + noise * rng.random(count),
        "floor": pruned * 0.98 + noise * rng.random(count),
    }


def test_a_clear_speed_up_is_claimed() -> None:
    result = report(samples(10, 6, 0.1), 4, {})
    assert result.claimed
    assert result.speedup == pytest.approx(10 / 6, rel=0.02)
    assert result.overhead == pytest.approx(1 / 0.98, rel=0.02)
    assert result.images_per_second["pruned"] == pytest.approx(4000 / 6.05, rel=0.02)
    assert "times as fast as dense" in result.verdict


def test_overlapping_medians_claim_nothing() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1, 3, 60)
    result = report({"dense": drift * 10, "pruned": drift * 9.5 + 0.001 * rng.random(60)}, 1, {})
    assert result.is_faster
    assert not result.claimed
    assert "overlap" in result.verdict
    assert result.overhead is None


def test_slower_and_unclear_are_said() -> None:
    assert report(samples(6, 10, 0.1), 1, {}).verdict.startswith("slower than dense")
    assert "not measurably faster" in report(samples(10, 10, 1.0), 1, {}).verdict


@pytest.mark.parametrize(("dense", "pruned"), [(10, 6), (6, 10), (10, 10)])
def test_what_only_a_cpu_ran_is_not_judged(dense: float, pruned: float) -> None:
    taken = samples(dense, pruned, 0.1)
    taken["fp32"] = taken["pruned"] * 0.5
    result = report(taken, 1, {"cpu_only": "no GPU here"})
    assert (result.cpu_only, result.claimed, result.fails) == ("no GPU here", False, False)
    assert result.verdict.startswith(f"not judged: {result.speedup:.2f} times the dense graph's speed (95 % interval ")
    assert result.verdict.endswith(f"on this CPU, which says nothing of its target; {LATER}")
    there = report(taken, 1, {})
    assert (there.cpu_only, there.fails) == (None, not there.is_faster)


def test_a_wider_precision_that_is_as_fast_is_said_to_be_the_one_to_take() -> None:
    taken = samples(10, 6, 0.1)
    taken["fp32"], taken["fp16"] = taken["pruned"] * 1.5, taken["pruned"] * 0.9
    result = report(taken, 1, {})
    assert result.ratios["over_fp32"] == Ratio(1.5, (1.5, 1.5), 60)
    assert result.ratios["over_fp16"].median == pytest.approx(0.9)
    assert result.claimed
    assert result.verdict.startswith("1.")
    assert "no faster than the same graph in fp16 (0.90 times its speed" in result.verdict
    assert "take fp16" in result.verdict
    assert "fp32" not in result.verdict


def test_too_few_rounds_claim_nothing() -> None:
    result = report({name: values[:5] for name, values in samples(10, 6, 0.1).items()}, 1, {})
    assert not result.claimed
    assert "5 rounds are too few" in result.verdict
    assert report({name: values[:6] for name, values in samples(10, 6, 0.1).items()}, 1, {}).claimed


def test_a_repeat_that_was_not_faster_claims_nothing() -> None:
    taken = samples(10, 6, 0.1)
    taken["dense"][40:] = 5.0
    taken["dense"][:40] = 20.0
    result = report(taken, 1, {}, repeats=[20, 20, 20])
    assert result.speedup_by_repeat == pytest.approx([20 / 6.05, 20 / 6.05, 5 / 6.05], rel=0.02)
    assert result.is_faster
    assert not result.claimed
    assert "one repeat of 3 had a ratio of 0.8" in result.verdict
    assert report(samples(10, 6, 0.1), 1, {}, repeats=[20, 20, 20]).claimed


def test_faster_is_decided_in_one_place() -> None:
    result = report(samples(10, 6, 0.1), 1, {})
    for low, faster in ((1.0001, True), (1.0, False), (0.9, False)):
        changed = replace(result, ratios={**result.ratios, "speedup": Ratio(1.2, (low, 1.3), 60)})
        assert (changed.is_faster, changed.claimed) == (faster, faster)
        assert ("times as fast as dense" in changed.verdict) is faster


@given(st.integers(6, 60), st.booleans(), st.sampled_from([None, "fp16", "int8"]))
def test_it_comes_back_from_json_equal(rounds: int, with_floor: bool, precision: str | None) -> None:
    taken = {name: values[:rounds] for name, values in samples(10, 6, 1.0).items()}
    if not with_floor:
        del taken["floor"]
    result = report(taken, 4, {"cpu": "x", "jetson": {"power_mode": "15W"}, "clock_advice": ["a"]}, [rounds - 3, 3])
    bundle = None if precision is None else TimedBundle("ort-cpu", precision, 4, graph_sha256="aa")
    modes = {"plain": summarize(taken["pruned"]), "cuda_graph": Untimed("it cannot be recorded")}
    result = replace(result, bundle=bundle, modes=modes)
    text = json.dumps(result.to_json())
    assert Bench.from_json(json.loads(text), "bench.json") == result
    assert ("floor" in json.loads(text)["distributions"]) is with_floor


@pytest.mark.parametrize("name", ["bench", "bench-engine", "bench-energy"])
def test_files_of_0_1_0_load(name: str) -> None:
    """What is derived anew is what 0.1.0 wrote, its verdict to the letter."""
    data = json.loads((OLD / f"{name}.json").read_text())
    found = Bench.from_json(data, name)
    assert json.loads(json.dumps(found.to_json())) == data
    assert found.is_faster is (data["ratios"]["speedup"]["interval"][0] > 1)
    if name == "bench-engine":
        assert found.modes is not None
        assert set(found.modes) == {"plain", "cuda_graph", "with_copies", "copy_in", "copy_out", "gpu_only"}
        assert found.energy is not None
        assert found.energy.lines() == ["not measured: nvidia-ml-py is not installed: pip install nvidia-ml-py"]
    if name == "bench-energy":
        assert found.energy is not None
        assert found.energy.per_image("pruned") == data["energy"]["joules_per_image"]["pruned"]["median"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distributions": {}}, "b.json lacks the latencies of the dense graph"),
        ({"ratios": {}}, "b.json lacks the ratio speedup"),
        ({"speed": 2}, "b.json: speed is unknown (known are batch, distributions,"),
        ({"environment": 3}, "b.json: environment is 3, but must be an object"),
        ({"modes": {"plain": {"why": "x"}}}, "b.json: modes.plain.why is unknown"),
    ],
)
def test_what_is_no_benchmark_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Bench.from_json(report(samples(10, 6, 0.1), 1, {}).to_json() | change, "b.json")
    assert str(caught.value).startswith(said)
