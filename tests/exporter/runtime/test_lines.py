"""Results as lines: one printer for `vitrim` and run_on_device.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from latency_tables import made_table

from vitrim.exporter.core.gate import gate_of
from vitrim.exporter.core.outcome import Figure
from vitrim.exporter.runtime.bench.blocks import BlockTimes, ByBlock
from vitrim.exporter.runtime.bench.report import LATER, Bench, Untimed
from vitrim.exporter.runtime.lines import (
    bench_lines,
    bench_notes,
    engine_lines,
    engine_state,
    made_by,
    parity_lines,
    promise_lines,
    table_lines,
)
from vitrim.exporter.runtime.parity import Parity
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.summary import Attention

OLD = Path(__file__).parents[2] / "data" / "0.1.0"


def test_a_benchmark() -> None:
    """The lines that run_on_device.py of 0.1.0 wrote of this very file."""
    bench = Bench.read(OLD / "bench-engine.json", "benchmark")
    assert bench_lines(bench)[:5] == [
        "tensorrt-10.3.0, batch 2, AMD EPYC",
        "  dense: 4.145 ms (95 % interval 4.143 to 4.146, p95 4.188)",
        "  pruned: 2.142 ms (95 % interval 2.140 to 2.144, p95 2.165)",
        "  floor: 1.642 ms (95 % interval 1.640 to 1.643, p95 1.666)",
        "  pruned, plain: 2.108 ms (95 % interval 2.101 to 2.158, p95 2.231)",
    ]
    assert bench_notes(bench)[-4:] == [
        "Speed: 1.94 times as fast as dense (95 % interval 1.93 to 1.94)",
        "Overhead over free slicing to the same tokens: 1.305",
        "Energy: not measured: nvidia-ml-py is not installed: pip install nvidia-ml-py",
        "Warning: the machine was busy (other programs used 1.0 of 2 cores): take absolute times with care",
    ]
    where = {"clocks": "floating", "clock_advice": ["sudo a", "sudo b"], "cpu_only": "no GPU here"}
    changed = replace(bench, environment=where, modes={"cuda_graph": Untimed("not recorded")}, energy=None)
    assert bench_notes(changed) == [
        "  pruned, cuda_graph: not recorded",
        "Note: no GPU here",
        "Speed: not judged: 1.94 times the dense graph's speed (95 % interval 1.93 to 1.94) on this CPU, which says "
        f"nothing of its target; {LATER}",
        "Overhead over free slicing to the same tokens: 1.305",
        "Clocks: floating; to lock them: sudo a; sudo b",
    ]


def test_openvino_says_how_it_was_loaded() -> None:
    bench = Bench.read(OLD / "bench-engine.json", "benchmark")
    loaded = {"version": "2026.4.1-22982-e213a147257", "device": "AMD EPYC", "threads": 1, "streams": 1}
    side = {**loaded, "hint": "throughput", "threads": 2, "requests": 2}
    where = {"cpu": "AMD EPYC", "device": {**loaded, "hint": "latency"}, "throughput": side}
    changed = replace(bench, environment=where, modes={"throughput": bench.pruned}, energy=None)
    assert bench_notes(changed)[:2] == [
        "  pruned, throughput of 2 requests side by side: 2.142 ms a batch (95 % interval 2.140 to 2.144, p95 2.165)",
        "OpenVINO 2026.4.1: 1 thread, 1 stream, latency",
    ]
    alone = replace(changed, environment={**where, "throughput": {**side, "requests": 1}})
    assert bench_notes(alone)[0].startswith("  pruned, throughput of 1 request side by side: ")


def test_a_ladder_with_an_engine() -> None:
    parity = Parity.read(OLD / "parity-engine.json", "parity report")
    assert parity_lines(parity) == [
        "onnx: ok, 4 images, top-1 100.0%, error 1e-06",
        "tensorrt-10.3.0 = golden: ok, 4 images, top-1 100.0%, error cosine 1.00000",
        "Engine: fp16, strongly typed because the graph holds fp16; "
        "all 1 matrix layers run in fp16 or as they were pinned",
    ]
    failed = replace(parity, rungs=(replace(parity.rungs[0], passed=False),), engine=None, graph_not_checked="no bf16")
    assert parity_lines(failed) == [
        "onnx: FAILED, 4 images, top-1 100.0%, error 1e-06",
        "Note: the graph was not checked: no bf16",
    ]


def test_an_engine_says_how_it_was_built() -> None:
    engine = EngineIdentity.read(OLD / "engine.json", "identity")
    assert engine.layers is not None
    layers = replace(engine.layers, attention=Attention(fused=11, not_fused=1, names=("s",), reason="too wide"))
    portable = replace(engine, version_compatible=True, hardware_compatible="ampere_plus", layers=layers)
    assert engine_lines(replace(portable, dla_core=0, dla_fallback=("a", "b")))[1:] == [
        "Attention: 11 fused, 1 not: too wide",
        "DLA core 0: 2 layers run on the GPU (a, b)",
        "Built version-compatible, hardware-compatible (ampere_plus)",
    ]


def test_an_engine_of_tensorrt_for_rtx_says_for_which_gpus_it_is() -> None:
    engine = replace(EngineIdentity.read(OLD / "engine.json", "identity"), family="rtx", tensorrt="1.7.1", layers=None)
    built = "by TensorRT for RTX 1.7.1 for GPUs of compute capability"
    assert made_by(replace(engine, capabilities=())) == f"{built} 8.0 and newer"
    own = replace(engine, family="tensorrt", tensorrt="10.3.0", gpu="Orin")
    assert made_by(own) == "by TensorRT 10.3.0 for Orin"
    assert made_by(replace(own, gpu=None)) == "by TensorRT 10.3.0 for an unnamed GPU"
    assert engine_lines(replace(engine, capabilities=("8.6", "12.0")))[-1] == f"Built {built} 8.6, 12.0"


def test_an_engine_that_was_not_run_is_not_called_proven() -> None:
    parity = Parity.read(OLD / "parity-engine.json", "parity report")
    assert engine_state(parity, None) == "built"
    unchecked = replace(parity, rungs=parity.rungs[:1], engine_not_checked="no GPU")
    assert engine_state(unchecked, None) == "built, but not run here: its numbers and times are unproven"
    assert "Note: the engine was not checked: no GPU" in parity_lines(unchecked)
    assert engine_state(parity, "skipped by the recipe") == "skipped by the recipe"


def test_time_by_block_is_told_where_it_is_asked_for() -> None:
    times = {
        kind: BlockTimes({"block 0": one, "head": 0.25}, 2 * one) for kind, one in (("dense", 4.0), ("pruned", 3.0))
    }
    bench = replace(Bench.read(OLD / "bench-engine.json", "benchmark"), by_block=ByBlock("openvino", 20, times))
    lines = bench_notes(bench, by_block=True)
    at = lines.index(
        "Milliseconds by block, counted by openvino: means of 20 runs; counting slows a whole run to 8.000 and 6.000 ms"
    )
    assert lines[at + 1 : at + 3] == ["  block 0: 4.000 dense, 3.000 pruned", "  head: 0.250 dense, 0.250 pruned"]
    assert not any("by block" in line for line in bench_notes(bench))


def test_a_latency_table() -> None:
    assert table_lines(made_table()) == [
        "small: decomposed, fused",
        "  1 tokens: attention 1.200, 1.175 ms, mlp 1.300 ms",
        "  9 tokens: attention 2.800, 2.575 ms, mlp 3.700 ms",
        "  17 tokens: attention 4.400, 3.975 ms, mlp 6.100 ms",
        "decomposed: dense 10.000 ms; a stage of all tokens adds zero_tprune 0.250",
        "fused: dense 9.500 ms; a stage of all tokens adds zero_tprune 0.250",
        "On a processor by onnxruntime 1, batch 1, 1 thread, fp32; medians of 2 processes, whose quartiles lie 1.0 % "
        "apart",
    ]


def test_what_was_required_and_that_it_was_published_all_the_same() -> None:
    found = {"agreement": Figure(0.9, (0.8, 0.95)), "overhead": Figure(1.1, (1.0, 1.2))}
    assert promise_lines(None, None, None) == promise_lines({}, None, None) == []
    held = promise_lines(None, None, gate_of({"agreement": 0.5}, found, {}))
    assert len(held) == 1
    assert held[0].startswith("Required: agreement at least ")
    assert held[0].endswith(": held")
    forced, first, second = promise_lines({}, None, gate_of({"agreement": 0.5, "overhead": 1.05}, found, {}))
    assert forced == "Published by force: what the recipe requires does not hold"
    assert first.endswith(": held")
    assert second.endswith(": FAILED")
