"""Fixture `recorder`: in place of all that touches TensorRT, it keeps what commands asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.runtime.commands import bench, build, check
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import runner
from vitrim.exporter.runtime.tensorrt.family import TENSORRT, Family
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions


class Recorder:
    """In place of all that touches TensorRT, a `Serializer` too: keeps what was asked."""

    family = TENSORRT

    def __init__(self) -> None:
        self.builds: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.dla: dict[str, int | None] = {}
        self.own = EngineIdentity("a", "b")
        self.made: list[tuple[str, bool]] = []
        self.reason: str | None = None
        self.graphs_fail = False
        self.calls: dict[tuple[str, bool, str], int] = {}

    def missing(self, family: Family = TENSORRT) -> str | None:
        return self.reason

    def read_identity(self, plan: Path) -> EngineIdentity:
        return self.own

    def __call__(self, trt: Any, parts: Any, settings: Any) -> bytes:
        raise AssertionError("nothing is built by it")

    def device_identity(self, family: Family) -> dict[str, Any]:
        assert family is TENSORRT
        return {"tensorrt": "10.3.0", "gpu": "Some GPU", "compute_capability": "8.7", "driver": "540.4"}

    def check_identity(self, plan: Path, onnx: Path, here: dict[str, Any]) -> EngineIdentity:
        return self.own

    def build_engine(
        self, onnx: Path, plan: Path, options: EngineOptions, *, precision: str, pinned: Any, **more: Any
    ) -> EngineIdentity:
        assert more["pins_may_miss"]  # the list is that of all graphs
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
    monkeypatch.setattr(runner, "runtime_missing", made.missing)
    monkeypatch.setattr(runner, "read_identity", made.read_identity)
    monkeypatch.setattr(bench, "environment", lambda threads=None: {"cpu": "c", "cores": 2, "load_average": [0.0]})
    return made


@pytest.fixture
def rtx(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRT for RTX on a machine without a GPU, whose kernels compute in float32; what was asked of it."""
    seen = fake_trt.install("1.7.1.116", name="tensorrt_rtx")
    seen.kernel = seen.kernel.replace("Half", "Float")
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    return seen
