"""What is built and timed of a bundle, and how, with an engine that only keeps a record; what runs is not asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_bundles import FP16, doubling, half, named

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.runtime.bench.report import Untimed
from vitrim.exporter.runtime.bench.stats import Distribution
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.bundles.manifest import read_manifest
from vitrim.exporter.runtime.commands import bench
from vitrim.exporter.runtime.commands.bench import bench_bundle
from vitrim.exporter.runtime.commands.build import build_bundle
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.machine.energy import Energy
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions

QUICK = Timing(runs=6, warmup=0)
ONE_THREAD = Timing(runs=6, warmup=0, threads=1)

MODES = {"plain", "cuda_graph", "with_copies", "copy_in", "copy_out", "gpu_only"}


def test_an_older_bundle_is_float32_and_timed_without_copies(recorder: Any, tmp_path: Path) -> None:
    result = bench_bundle(named(tmp_path / "b"), QUICK, serialize=recorder)
    assert recorder.builds == {"dense.onnx": ("fp32", ()), "floor.onnx": ("fp32", ())}
    where = result.environment
    assert (where["runtime"], where["cuda_graph"]) == ("tensorrt-10.3.0", False)
    assert where["copies"] == "host-device copies are not timed"
    assert (where["driver"], where["compute_capability"]) == ("540.4", "8.7")
    assert set(result.modes or ()) == MODES
    assert recorder.made.count(("model.onnx", True)) == 1
    assert result.energy is None
    files = read_manifest(tmp_path / "b").files
    assert result.bundle is not None
    assert result.bundle.to_json() == {
        "target": "jetpack-6",
        "precision": "fp32",
        "batch": 2,
        "graph_sha256": files["model.onnx"].sha256,
        "dense_sha256": files["dense.onnx"].sha256,
        "budget_sha256": files["budget.json"].sha256,
    }


def test_wider_precisions_are_built_as_such_and_timed_too(recorder: Any, tmp_path: Path) -> None:
    precision = {"name": "int8", "float32_nodes": ["/norm"]}
    folder = named(tmp_path / "b", "model.fp16.onnx", "model.fp32.onnx", precision=precision)
    result = bench_bundle(folder, QUICK, serialize=recorder)
    assert recorder.builds == {
        "dense.onnx": ("fp32", ()),
        "floor.onnx": ("int8", ("/norm",)),
        "model.fp16.onnx": ("fp16", ("/norm",)),
        "model.fp32.onnx": ("fp32", ()),
    }
    assert set(result.distributions) == {"dense", "pruned", "floor", "fp16", "fp32"}
    assert {"over_fp16", "over_fp32"} <= set(result.ratios)
    assert result.bundle is not None
    assert result.bundle.precision == "int8"


def test_only_what_a_dla_can_compute_is_built_for_the_bundle_s_dla(recorder: Any, tmp_path: Path) -> None:
    recorder.own = EngineIdentity("a", "b", dla_core=1, version_compatible=True)
    folder = named(tmp_path / "b", "model.fp16.onnx", "model.fp32.onnx", precision={"name": "int8"})
    bench_bundle(folder, QUICK, serialize=recorder)
    assert recorder.dla == {"dense.onnx": None, "floor.onnx": 1, "model.fp16.onnx": 1, "model.fp32.onnx": None}


def test_graphs_and_copies_are_as_asked(recorder: Any, tmp_path: Path) -> None:
    folder = named(tmp_path / "b")
    result = bench_bundle(folder, Timing(30, warmup=0, cuda_graph=True, copies=True), serialize=recorder)
    assert (result.environment["cuda_graph"], result.environment["copies"]) == (
        True,
        "host-device copies are timed",
    )
    assert recorder.calls[("dense.onnx", True, "call")] >= 30
    assert ("dense.onnx", True, "infer") not in recorder.calls
    assert recorder.made.count(("model.onnx", False)) == 1  # the other way, timed besides
    assert set(result.modes or ()) == MODES


def test_an_engine_that_cannot_be_recorded_says_why(recorder: Any, tmp_path: Path) -> None:
    recorder.graphs_fail = True
    folder = named(tmp_path / "b")
    result = bench_bundle(folder, QUICK, serialize=recorder)
    assert result.modes is not None
    assert result.modes["cuda_graph"] == Untimed("this engine cannot be recorded")
    assert isinstance(result.modes["plain"], Distribution)
    assert result.modes["plain"].samples == 50
    with pytest.raises(UnsupportedError, match="cannot be recorded"):
        bench_bundle(folder, Timing(runs=6, warmup=0, cuda_graph=True), serialize=recorder)


def test_energy_is_measured_besides(recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(runs: Any, batch: int, kind: str) -> Energy:
        asked.append((set(runs), batch, kind))
        return Energy(None, "no energy")

    monkeypatch.setattr(bench, "measure_here", measured)
    result = bench_bundle(named(tmp_path / "b"), Timing(runs=6, warmup=0, energy=True), serialize=recorder)
    assert asked == [({"dense", "pruned", "floor"}, 2, "gpu")]
    assert result.energy == Energy(None, "no energy")


def test_a_runtime_that_is_asked_for_is_not_replaced(recorder: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no model\.engine: build it first"):
        bench_bundle(named(tmp_path / "a", engine=False), runtime="tensorrt", serialize=recorder)
    recorder.reason = "TensorRT finds no GPU"
    with pytest.raises(EnvironmentLackError, match="no GPU"):
        bench_bundle(named(tmp_path / "b"), runtime="tensorrt", serialize=recorder)


def test_the_dense_graph_is_built_like_the_bundle_s_own_engine(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("8.6.1")
    seen.inspection = fake_trt.inspection("Half")
    root = doubling(tmp_path / "b", **FP16)
    build_bundle(root, EngineOptions(hardware_compatible="ampere_plus"))
    built: list[tuple[str, EngineOptions, dict[str, Any]]] = []
    real = bench.build_engine

    def build(onnx: Path, plan: Path, options: EngineOptions, **more: Any) -> Any:
        built.append((Path(onnx).name, options, more))
        return real(onnx, plan, options, **more)

    monkeypatch.setattr(bench, "build_engine", build)
    result = bench_bundle(root, QUICK)
    ((name, options, more),) = built
    assert name == "dense.onnx"
    assert (more["precision"], more["pinned"], more["pins_may_miss"]) == ("fp32", (), True)
    assert (options.hardware_compatible, options.version_compatible) == ("ampere_plus", False)
    assert result.runtime == "tensorrt-8.6.1"


@pytest.mark.slow
@pytest.mark.parametrize("half_io", [False, True])
def test_onnxruntime_times_every_graph_in_its_own_precision(
    half_io: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, str] = {}
    real = bench.runner_for

    def runner(path: Path, target: Any, threads: int | None, precision: Any, cached: bool) -> Any:
        asked[path.name] = precision
        return real(path, target, threads, precision, cached)

    monkeypatch.setattr(bench, "runner_for", runner)
    result = bench_bundle(half(tmp_path / "b", half_io=half_io), QUICK)
    assert asked == {"dense.onnx": "fp32", "model.onnx": "fp16", "floor.onnx": "fp16", "model.fp32.onnx": "fp32"}
    assert set(result.distributions) == {"dense", "pruned", "floor", "fp32"}
    assert result.bundle is not None
    assert result.bundle.precision == "fp16"


def test_an_engine_that_no_gpu_here_can_run_is_not_timed_and_the_reason_is_said(
    rtx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = doubling(tmp_path / "b", target="trt-rtx")
    build_bundle(root)
    result = bench_bundle(root, QUICK)
    told = "TensorRT for RTX 1.7.1.116 builds engines here, but running one needs a GPU, and there is none"
    assert result.runtime == "onnxruntime-cpu"
    assert str(result.cpu_only).endswith(f"; model.engine is not timed: {told}")
    assert result.verdict.startswith("not judged: ")
    assert not result.fails
    assert not str(bench_bundle(root, QUICK, runtime="onnxruntime").cpu_only).endswith(told)
    with pytest.raises(EnvironmentLackError, match=told):
        bench_bundle(root, QUICK, runtime="tensorrt")
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 4090", "compute_capability": "8.9"})
    timed = bench_bundle(root, QUICK)
    assert (timed.runtime, timed.cpu_only) == ("tensorrt-rtx-1.7.1.116", None)
    assert timed.environment["gpu"] == "RTX 4090"


def test_openvino_times_a_bundle_of_onnxruntime_s_and_says_how_it_ran(tmp_path: Path) -> None:
    result = bench_bundle(doubling(tmp_path / "b", target="ort-cpu"), ONE_THREAD, runtime="openvino")
    loaded, side = result.conditions.device, result.conditions.throughput
    assert (result.runtime, result.cpu_only) == ("openvino-cpu", None)
    assert (loaded.threads, loaded.streams, loaded.hint) == (1, 1, "latency")
    assert (side.threads, side.hint) == (1, "throughput")
    assert result.modes is not None
    assert isinstance(result.modes["throughput"], Distribution)
    assert set(result.distributions) == {"dense", "pruned"}


def test_what_a_cpu_says_of_a_bundle_for_another_device_is_not_judged(tmp_path: Path) -> None:
    result = bench_bundle(doubling(tmp_path / "b", target="trt-10.3"), ONE_THREAD, runtime="openvino")
    assert result.cpu_only == "the graph is for trt-10.3, but openvino ran it on the CPU, as asked"
    assert result.verdict.startswith("not judged: ")


def test_a_bundle_for_openvino_is_never_told_to_be_built(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b", target="openvino")
    assert bench_bundle(root, ONE_THREAD).runtime == "openvino-cpu"
    with pytest.raises(InputError, match=r"b has no model\.engine: none belongs to openvino: OpenVINO compiles"):
        bench_bundle(root, runtime="tensorrt")
    with pytest.raises(InputError, match="there is no runtime 'cuda'"):
        bench_bundle(root, runtime="cuda")
    bf16 = doubling(tmp_path / "bf16", precision={"name": "bf16", "float32_nodes": []}, target="openvino")
    with pytest.raises(EnvironmentLackError, match="^onnxruntime runs no bf16 graphs$"):
        bench_bundle(bf16, runtime="onnxruntime")


def test_time_is_counted_by_block_on_a_cpu_alone(recorder: Any, tmp_path: Path) -> None:
    root = half(tmp_path / "b")
    asked: list[str] = []

    def blocks(path: Path) -> dict[str, str]:
        asked.append(path.name)
        return {"/head": "head", "/topk": "block 0"}

    for runtime, statistic in (("onnxruntime", "medians"), ("openvino", "means")):
        found = bench_bundle(root, ONE_THREAD, runtime=runtime, blocks=blocks).by_block
        assert found is not None
        assert (found.counted_by, found.statistic, set(found.graphs)) == (runtime, statistic, {"dense", "pruned"})
        assert [list(one.parts) for one in found.graphs.values()] == [["block 0", "head"]] * 2
    assert asked == ["dense.onnx", "model.onnx"] * 2
    assert bench_bundle(root, ONE_THREAD, blocks=lambda path: {}).by_block is None  # no blocks that can be told
    with pytest.raises(EnvironmentLackError, match="counted on a CPU.*, and trt-10.3 is for another device"):
        bench_bundle(doubling(tmp_path / "t", target="trt-10.3"), ONE_THREAD, blocks=blocks)
    with pytest.raises(EnvironmentLackError, match="and an engine is timed; add --runtime onnxruntime"):
        bench_bundle(named(tmp_path / "n"), QUICK, serialize=recorder, blocks=blocks)
