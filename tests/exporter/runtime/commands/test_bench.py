"""What is built and timed of a bundle, and how, with an engine that only keeps a record; what runs is not asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.runtime import bundle
from vitrim.exporter.runtime.bench.report import Untimed
from vitrim.exporter.runtime.bench.stats import Distribution
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.commands import bench, build, check
from vitrim.exporter.runtime.commands.bench import bench_bundle
from vitrim.exporter.runtime.commands.build import build_bundle
from vitrim.exporter.runtime.commands.check import check_bundle
from vitrim.exporter.runtime.machine.energy import Energy
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions

QUICK = Timing(runs=6, warmup=0)

MODES = {"plain", "cuda_graph", "with_copies", "copy_in", "copy_out", "gpu_only"}


class Recorder:
    """In place of all that touches TensorRT, a `Serializer` too: keeps what was asked."""

    def __init__(self) -> None:
        self.builds: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.dla: dict[str, int | None] = {}
        self.own = EngineIdentity("a", "b")
        self.made: list[tuple[str, bool]] = []
        self.reason: str | None = None
        self.graphs_fail = False
        self.calls: dict[tuple[str, bool, str], int] = {}

    def missing(self) -> str | None:
        return self.reason

    def __call__(self, trt: Any, parts: Any, settings: Any) -> bytes:
        raise AssertionError("nothing is built by it")

    def device_identity(self) -> dict[str, Any]:
        return {"tensorrt": "10.3.0", "gpu": "Some GPU", "compute_capability": "8.7", "driver": "540.4"}

    def check_identity(self, plan: Path, onnx: Path, here: dict[str, Any]) -> EngineIdentity:
        return self.own

    def build_engine(
        self, onnx: Path, plan: Path, options: EngineOptions, *, precision: str, pinned: Any, **more: Any
    ) -> EngineIdentity:
        assert more.get("pins_may_miss", False) is (onnx.name != "model.onnx")  # the list is that graph's
        assert more["serialize"] is self
        self.builds[onnx.name], self.dla[onnx.name] = (precision, tuple(pinned)), options.dla_core
        if onnx.name != "model.onnx":
            like = EngineOptions(version_compatible=self.own.version_compatible, strict=False)
            assert replace(options, dla_core=None) == like
        Path(plan).write_bytes(b"engine")
        return self.own

    def TrtRunner(self, plan: Path, onnx: Path, cuda_graph: bool = False) -> Any:  # noqa: N802
        if cuda_graph and self.graphs_fail:
            raise UnsupportedError("this engine cannot be recorded")
        self.made.append((onnx.name, cuda_graph))

        class Runner:
            name, batch, shape, dtype = "tensorrt-10.3.0", 2, (2, 3), np.dtype(np.float32)

            def _count(runner, way: str) -> None:  # noqa: N805
                key = (onnx.name, cuda_graph, way)
                self.calls[key] = self.calls.get(key, 0) + 1

            def __call__(runner, image: np.ndarray) -> dict[str, np.ndarray]:  # noqa: N805
                assert image.shape == (2, 3)
                runner._count("call")
                return {"logits": image}

            def infer(runner) -> None:  # noqa: N805
                runner._count("infer")

            def upload(runner, image: np.ndarray) -> None:  # noqa: N805
                runner._count("upload")

            def download(runner) -> dict[str, np.ndarray]:  # noqa: N805
                return {}

            def device_milliseconds(runner) -> float:  # noqa: N805
                return 1.0

            def __enter__(runner) -> Any:  # noqa: N805
                return runner

            def __exit__(runner, *_: object) -> None:  # noqa: N805
                pass

        return Runner()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    for name in ("device_identity", "check_identity", "build_engine", "TrtRunner"):
        monkeypatch.setattr(bench, name, getattr(made, name))
    monkeypatch.setattr(build, "build_engine", made.build_engine)
    monkeypatch.setattr(check, "TrtRunner", made.TrtRunner)
    monkeypatch.setattr(check, "tensorrt_missing", made.missing)
    monkeypatch.setattr(bench, "environment", lambda threads=None: {"cpu": "c", "cores": 2, "load_average": [0.0]})
    return made


def make(folder: Path, *extra: str, precision: dict[str, Any] | None = None, engine: bool = True) -> Path:
    folder.mkdir()
    for name in (
        "dense.onnx",
        "model.onnx",
        "floor.onnx",
        "budget.json",
        *extra,
        *(["model.engine"] if engine else []),
    ):
        (folder / name).write_text(name)
    golden = {"image": np.zeros((2, 3), np.float32), "logits": np.zeros((2, 3), np.float32)}
    np.savez(folder / "golden.npz", **golden)  # type: ignore[arg-type]
    parity = {"passed": True, "atol": 1e-4, "tie": 1e-5, "smallest_atol": 0.0, "smallest_tie": 0.0, "rungs": []}
    (folder / "parity.json").write_text(json.dumps(parity | {"first_offender": None}))
    held = {} if precision is None else {"precision": precision}
    bundle.write_manifest(folder, {}, [], target="jetpack-6", batch=2, **held)
    return folder


def test_an_older_bundle_is_float32_and_timed_without_copies(recorder: Recorder, tmp_path: Path) -> None:
    result = bench_bundle(make(tmp_path / "b"), QUICK, serialize=recorder)
    assert recorder.builds == {"dense.onnx": ("fp32", ()), "floor.onnx": ("fp32", ())}
    where = result.environment
    assert (where["runtime"], where["cuda_graph"]) == ("tensorrt-10.3.0", False)
    assert where["copies"] == "host-device copies are not timed"
    assert (where["driver"], where["compute_capability"]) == ("540.4", "8.7")
    assert set(result.modes or ()) == MODES
    assert recorder.made.count(("model.onnx", True)) == 1
    assert result.energy is None
    files = bundle.read_manifest(tmp_path / "b").files
    assert result.bundle is not None
    assert result.bundle.to_json() == {
        "target": "jetpack-6",
        "precision": "fp32",
        "batch": 2,
        "graph_sha256": files["model.onnx"].sha256,
        "dense_sha256": files["dense.onnx"].sha256,
        "budget_sha256": files["budget.json"].sha256,
    }


def test_wider_precisions_are_built_as_such_and_timed_too(recorder: Recorder, tmp_path: Path) -> None:
    precision = {"name": "int8", "float32_nodes": ["/norm"]}
    folder = make(tmp_path / "b", "model.fp16.onnx", "model.fp32.onnx", precision=precision)
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


def test_only_what_a_dla_can_compute_is_built_for_the_bundle_s_dla(recorder: Recorder, tmp_path: Path) -> None:
    recorder.own = EngineIdentity("a", "b", dla_core=1, version_compatible=True)
    folder = make(tmp_path / "b", "model.fp16.onnx", "model.fp32.onnx", precision={"name": "int8"})
    bench_bundle(folder, QUICK, serialize=recorder)
    assert recorder.dla == {"dense.onnx": None, "floor.onnx": 1, "model.fp16.onnx": 1, "model.fp32.onnx": None}


def test_graphs_and_copies_are_as_asked(recorder: Recorder, tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    result = bench_bundle(folder, Timing(30, warmup=0, cuda_graph=True, copies=True), serialize=recorder)
    assert (result.environment["cuda_graph"], result.environment["copies"]) == (
        True,
        "host-device copies are timed",
    )
    assert recorder.calls[("dense.onnx", True, "call")] >= 30
    assert ("dense.onnx", True, "infer") not in recorder.calls
    assert recorder.made.count(("model.onnx", False)) == 1  # the other way, timed besides
    assert set(result.modes or ()) == MODES


def test_an_engine_that_cannot_be_recorded_says_why(recorder: Recorder, tmp_path: Path) -> None:
    recorder.graphs_fail = True
    folder = make(tmp_path / "b")
    result = bench_bundle(folder, QUICK, serialize=recorder)
    assert result.modes is not None
    assert result.modes["cuda_graph"] == Untimed("this engine cannot be recorded")
    assert isinstance(result.modes["plain"], Distribution)
    assert result.modes["plain"].samples == 50
    with pytest.raises(UnsupportedError, match="cannot be recorded"):
        bench_bundle(folder, Timing(runs=6, warmup=0, cuda_graph=True), serialize=recorder)


def test_energy_is_measured_besides(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(runs: Any, batch: int, kind: str) -> Energy:
        asked.append((set(runs), batch, kind))
        return Energy(None, "no energy")

    monkeypatch.setattr(bench, "measure_here", measured)
    result = bench_bundle(make(tmp_path / "b"), Timing(runs=6, warmup=0, energy=True), serialize=recorder)
    assert asked == [({"dense", "pruned", "floor"}, 2, "gpu")]
    assert result.energy == Energy(None, "no energy")


def test_a_runtime_that_is_asked_for_is_not_replaced(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no model\.engine: build it first"):
        bench_bundle(make(tmp_path / "a", engine=False), runtime="tensorrt", serialize=recorder)
    recorder.reason = "TensorRT finds no GPU"
    with pytest.raises(EnvironmentLackError, match="no GPU"):
        bench_bundle(make(tmp_path / "b"), runtime="tensorrt", serialize=recorder)


def test_a_check_that_can_check_nothing_does_not_pass(recorder: Recorder, tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    assert check_bundle(folder, onnxruntime=False).passed
    recorder.reason = "TensorRT finds no GPU"
    with pytest.raises(EnvironmentLackError, match="nothing was checked: TensorRT finds no GPU"):
        check_bundle(folder, onnxruntime=False)


def test_a_build_takes_the_precision(recorder: Recorder, tmp_path: Path) -> None:
    folder = make(tmp_path / "b", precision={"name": "fp16", "float32_nodes": ["/norm"]}, engine=False)
    assert build_bundle(folder, EngineOptions(workspace_mib=64), serialize=recorder).passed
    assert recorder.builds == {"model.onnx": ("fp16", ("/norm",))}
    manifest = bundle.verify(folder)
    assert manifest.precision == bundle.GraphPrecision("fp16", ("/norm",))
    assert manifest.engine == "built"
