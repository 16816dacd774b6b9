"""Benchmarks side by side: what is claimed between two devices, what is warned about."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import anything, fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vitrim.exporter.core.errors import InputError, visible
from vitrim.exporter.core.records import finite
from vitrim.exporter.runtime.bench import compare as results
from vitrim.exporter.runtime.bench.compare import Comparison
from vitrim.exporter.runtime.bench.report import Bench, TimedBundle, report
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.lines import bench_lines
from vitrim.exporter.runtime.machine.energy import Energy, GraphEnergy
from vitrim.terminal.screens.bench import print_comparison

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


def bench(pruned: float, batch: int = 2, noise: float = 0.1, graph: str = "aa", **where: Any) -> Bench:
    """A benchmark of the pruned graph at so many milliseconds, twice as fast as dense."""
    rng = np.random.default_rng(0)
    samples = {"dense": 2 * pruned + noise * rng.random(60), "pruned": pruned + noise * rng.random(60)}
    environment = {"cpu": "Some CPU", "runtime": "onnxruntime-cpu", "clocks": "unknown", **where}
    identity = TimedBundle(precision="fp32", graph_sha256=graph, budget_sha256="bb")
    return replace(report(samples, batch, environment), bundle=identity)


def save(folder: Path, **found: Bench) -> list[Path]:
    for name, result in found.items():
        result.write(folder / f"{name}.json")
    return [folder / f"{name}.json" for name in found]


def test_a_clear_difference_is_claimed_with_its_widest_interval(tmp_path: Path) -> None:
    result = results.compare(save(tmp_path, slow=bench(10.0), fast=bench(5.0)))
    (pair,) = result.pairs
    slow, fast = result.rows
    assert pair.claimed
    assert pair.ratio == pytest.approx(10.05 / 5.05, rel=0.01)
    assert pair.interval[0] == pytest.approx(slow.median_interval[0] / fast.median_interval[1])
    assert pair.interval[1] == pytest.approx(slow.median_interval[1] / fast.median_interval[0])
    assert pair.verdict.startswith("fast.json makes 1.99 times the images per second of slow.json")
    assert result.warnings == ()
    assert (slow.p95 is None, slow.p99, slow.claimed, slow.precision) == (False, None, True, "fp32")
    assert fast.images_per_second == pytest.approx(2000 / fast.median)


def test_overlapping_intervals_claim_nothing(tmp_path: Path) -> None:
    (pair,) = results.compare(save(tmp_path, one=bench(10.0, noise=2.0), other=bench(10.1, noise=2.0))).pairs
    assert (pair.claimed, pair.ratio) == (False, None)
    assert "no difference is claimed between other.json and one.json" in pair.verdict


def test_a_busy_machine_claims_nothing(tmp_path: Path) -> None:
    (pair,) = results.compare(save(tmp_path, one=bench(10.0), other=bench(5.0, warning="it was busy"))).pairs
    assert (pair.claimed, pair.ratio) == (False, None)
    assert "other.json ran on a busy machine (interval 1.9" in pair.verdict


def test_openvino_is_laid_beside_onnxruntime_with_the_threads_of_both(tmp_path: Path) -> None:
    loaded = {"version": "2026.4.1-1", "device": "Some CPU", "hint": "latency", "threads": 1, "streams": 1}
    other = bench(5.0, runtime="openvino-cpu", threads=2, device=loaded)
    gpu = bench(2.0, runtime="openvino-gpu", threads=2)
    result = results.compare(save(tmp_path, ort=bench(10.0, threads=2), ov=other, gpu=gpu))
    assert [(row.runtime, row.threads) for row in result.rows] == [
        ("onnxruntime-cpu", 2),
        ("openvino-cpu", 1),
        ("openvino-gpu", None),
    ]
    assert result.pairs[0].claimed
    assert result.warnings == ()  # the same graph


def test_images_per_second_and_not_milliseconds_are_compared(tmp_path: Path) -> None:
    result = results.compare(save(tmp_path, one=bench(10.0, batch=1), eight=bench(40.0, batch=8)))
    assert result.pairs[0].ratio == pytest.approx(2.0, rel=0.01)
    assert result.pairs[0].interval == pytest.approx([2.0, 2.0], rel=0.02)
    assert result.warnings == ("one.json and eight.json have different batches",)


def test_what_is_not_comparable_or_doubtful_is_warned_about(tmp_path: Path) -> None:
    board = {"power_mode": "15W", "overcurrent_events": 3}
    one = bench(
        10.0, runtime="tensorrt-8.5.2", cuda_graph=True, copies="host-device copies are not timed", jetson=board
    )
    one.environment.update(jetson_after={"overcurrent_events": 5, "throttling": ["gpu-throttle-alert"]})
    one.environment.update(clocks="floating", clock_advice=["sudo jetson_clocks"], gpu="Orin")
    other = bench(5.0, graph="cc", runtime="tensorrt-10.3.0", cuda_graph=False, copies="host-device copies are timed")
    other.environment.update(warning="the machine was busy", throttle_events=1, throttle_events_after=4)
    assert other.bundle is not None
    other = replace(other, bundle=replace(other.bundle, budget_sha256="dd", precision="fp16"))
    result = results.compare(save(tmp_path, a=one, b=other))
    assert result.rows[0].device == "Some CPU (15W Orin)"
    assert set(result.warnings) == {
        "a.json: its clocks were floating: sudo jetson_clocks",
        "a.json: it ran short of power 2 times meanwhile",
        "a.json: gpu-throttle-alert was on at its end",
        "b.json: the machine was busy",
        "b.json: its cores were slowed down for heat 3 times meanwhile",
        "a.json and b.json time different graphs (made for other targets, or of other models)",
        "a.json and b.json have different token budgets",
        "a.json and b.json have different precisions",
        "a.json and b.json were timed with and without CUDA graphs",
        "a.json and b.json were timed with and without the copies to and from the GPU",
    }


def test_energy_is_laid_side_by_side_only_where_it_was_measured(tmp_path: Path) -> None:
    spent = GraphEnergy(median=0.5, range=(0.4, 0.6), above_idle=True, with_idle=0.7, watts=5.0)
    unclear = replace(spent, median=-0.1, above_idle=False)
    one = replace(bench(10.0), energy=Energy({"pruned": spent}, idle_watts=3.0))
    two = replace(bench(10.0), energy=Energy(None, "no energy"))
    three = replace(bench(10.0), energy=Energy({"pruned": unclear}, idle_watts=3.0))
    rows = results.compare(save(tmp_path, one=one, two=two, three=three)).rows
    assert [row.joules_per_image for row in rows] == [0.5, None, None]
    assert [row.idle_watts for row in rows] == [3.0, None, 3.0]


def test_a_bundle_is_verified_and_says_which_graph_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_text("graph")
    old = replace(bench(10.0), bundle=None)
    old.write(folder / "bench.json")
    write_manifest(folder, {}, [], target="ort-cpu", batch=2)
    (file,) = save(tmp_path, file=bench(10.0))
    result = results.compare([folder, file])
    assert result.rows[0].precision == "fp32"
    assert "time different graphs" in result.warnings[0]
    (file,) = save(tmp_path, file=old)
    assert "does not say which it timed" in results.compare([folder, file]).warnings[0]
    (folder / "model.onnx").write_text("other")
    with pytest.raises(InputError, match=r"model\.onnx is not the file that was published"):
        results.compare([folder, file])


def test_a_bundle_without_a_benchmark_says_where_to_take_one(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_text("graph")
    write_manifest(folder, {}, [], target="jetpack-6", batch=2)
    with pytest.raises(
        InputError, match=r"out holds no benchmark: time it on its device by `vitrim bench .*out -o FILE`"
    ):
        results.compare([*save(tmp_path, file=bench(10.0)), folder])


def test_what_only_a_cpu_ran_is_warned_about(tmp_path: Path) -> None:
    result = results.compare(save(tmp_path, orin=bench(10.0), here=bench(5.0, cpu_only="no GPU here")))
    assert result.warnings == ("here.json: it says nothing of its target (no GPU here)",)
    assert [row.claimed for row in result.rows] == [True, False]


@pytest.mark.parametrize("text", ["[]", "{}", '{"environment": 3, "distributions": {}}', '{"environment": {"cpu": 1}}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json is no benchmark; `vitrim bench"):
        results.compare([tmp_path / "x.json", tmp_path / "x.json"])
    with pytest.raises(InputError, match="at least two"):
        results.compare([tmp_path / "x.json"])
    with pytest.raises(InputError, match=r"cannot read .*none\.json: no such file"):
        results.compare([tmp_path / "none.json", tmp_path / "x.json"])


def test_names_that_would_be_the_same_keep_their_folders(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        save(tmp_path / name, bench=bench(10.0))
    rows = results.compare([tmp_path / "a/bench.json", tmp_path / "b/bench.json"]).rows
    assert [row.name for row in rows] == [str(tmp_path / "a/bench.json"), str(tmp_path / "b/bench.json")]


def test_files_of_0_1_0_load() -> None:
    data = json.loads((OLD / "comparison.json").read_text())
    found = Comparison.from_json(data, "comparison.json")
    assert json.loads(json.dumps(found.to_json())) == data
    assert [row.joules_per_image is None for row in found.rows] == [False, True, True]
    again = results.compare([OLD / "bench-energy.json", OLD / "bench-engine.json"])
    assert replace(again.rows[0], threads=None) == found.rows[0]  # which 0.1.0 did not tell
    assert Comparison.from_json(json.loads(json.dumps(again.to_json())), "c") == again


BENCHES = [json.loads((OLD / f"{name}.json").read_text()) for name in ("bench", "bench-energy", "bench-engine")]


def use_benches(first: Path, second: Path) -> None:
    found = results.compare([first, second])
    json.dumps(finite(found.to_json()), allow_nan=False)
    for text in (*found.warnings, *(pair.verdict for pair in found.pairs), *(row.device for row in found.rows)):
        assert text == visible(text)
    bench_lines(results.read_bench(first))
    print_comparison(found, Console(file=io.StringIO()))


@fuzz(150)
@given(data=st.sampled_from(BENCHES).flatmap(mangled) | anything, tail=st.just(b"") | st.binary(max_size=4))
def test_any_json_is_a_benchmark_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    path = json_file(tmp_path / "x.json", data, tail)
    held(use_benches, path, OLD / "bench.json")
    held(use_benches, OLD / "bench.json", path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "has the batch 0, but a batch has an image"),
        ({"environment": {"jetson": "orin"}}, 'environment: jetson is "orin", but must be an object'),
        ({"environment": {"clock_advice": [3]}}, "environment: clock_advice[0] is 3, but must be text"),
        ({"environment": {"warning": {"a": 1}}}, "environment: warning is an object, but must be text"),
        ({"environment": {"throttle_events": "many"}}, 'environment: throttle_events is "many", but must be a whole'),
        (
            {"environment": {"jetson_after": {"throttling": 3}}},
            "environment: jetson_after.throttling is 3, but must",
        ),
        ({"energy": {"joules_per_image": {}}}, "energy lacks idle_watts, which measured joules come with"),
    ],
)
def test_a_benchmark_that_was_edited_names_what_is_wrong_in_it(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(BENCHES[0] | change))
    with pytest.raises(InputError) as caught:
        results.compare([tmp_path / "x.json", OLD / "bench.json"])
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [0, -1.5, 1e300, 1e-300])
def test_a_latency_that_no_clock_measures_is_refused(value: float, tmp_path: Path) -> None:
    data = json.loads((OLD / "bench.json").read_text())
    data["distributions"]["pruned"]["median"] = value
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="has the latency of pruned as .*; no clock measures that"):
        results.read_bench(tmp_path / "x.json")
