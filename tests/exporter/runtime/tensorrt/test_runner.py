"""Engines that run, against a stand-in for TensorRT and libcudart: loaded safely, as CUDA graphs, refused in a line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import cuda, engine, runner
from vitrim.exporter.runtime.tensorrt.identity import sidecar
from vitrim.exporter.runtime.tensorrt.options import EngineOptions
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
from vitrim.exporter.runtime.tensorrt.runner import TrtRunner


def onnx_in(folder: Path) -> Path:
    """A file for the stand-in's parser, which takes any."""
    path = folder / "m.onnx"
    path.write_bytes(b"graph")
    return path


def test_a_version_compatible_engine_on_a_newer_tensorrt_needs_the_machine_s_own_lean_runtime(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("8.6.1")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan, EngineOptions(version_compatible=True))
    seen = fake_trt.install("10.3.0")
    with pytest.raises(EnvironmentLackError, match=r"built by TensorRT 8\.6\.1: name .*libnvinfer_lean\.so\.8"):
        TrtRunner(plan, onnx)
    monkeypatch.setenv(runner.LEAN_RUNTIME, "/opt/libnvinfer_lean.so.10")
    with pytest.raises(EnvironmentLackError, match=r"is no lean runtime of TensorRT 8\.6\.1"):
        TrtRunner(plan, onnx)
    monkeypatch.setenv(runner.LEAN_RUNTIME, "/opt/libnvinfer_lean.so.8")
    with TrtRunner(plan, onnx) as opened:
        assert opened.shape == (2, 3)
    assert all(runtime.engine_host_code_allowed is False for runtime in seen.runtimes[-2:])
    fake_trt.install("11.4.1")
    with pytest.raises(InputError, match=r"built for tensorrt 8\.6\.1, but here it is 11\.4\.1"):
        TrtRunner(plan, onnx)


def test_a_cuda_graph_is_captured_once_and_replayed(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    with TrtRunner(plan, onnx, cuda_graph=True) as opened:
        for step in range(4):
            np.testing.assert_array_equal(opened(image + step)["logits"], 2 * (image + step))
        opened.infer()
        assert seen.enqueued == 2  # one plain run, one for the capture
        assert seen.cuda.calls == ["begin", "end", "instantiate", "destroy graph"] + 5 * ["launch"]
    assert seen.cuda.calls[-1] == "destroy"


@pytest.mark.parametrize("failing", ["begin", "end", "instantiate", "launch"])
def test_what_cuda_refuses_is_said(fake_trt: Any, tmp_path: Path, failing: str) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)
    seen.cuda.failing = {failing: 900}
    told = r"cuda\w+ failed with CUDA error 900 \(operation not permitted.*run without a CUDA graph"
    with pytest.raises(UnsupportedError, match=told), TrtRunner(plan, onnx, cuda_graph=True) as opened:
        opened.infer()  # only this fails to launch; the others fail before
    assert not seen.cuda.memory


def test_without_a_cuda_runtime_the_runner_says_so(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)

    monkeypatch.setattr(cuda, "load", partial(fake_trt.load, lambda: ["none/libcudart.so"]))
    with pytest.raises(EnvironmentLackError, match=r"libcudart\) of 11\.4 or newer is not found: set LD_LIBRARY_PATH"):
        TrtRunner(plan, onnx)


def test_an_engine_is_loaded_without_host_code_and_runs(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    with TrtRunner(plan, onnx) as opened:
        assert seen.runtimes[-1].engine_host_code_allowed is False
        assert (opened.batch, opened.shape, opened.outputs, opened.name) == (2, (2, 3), ["logits"], "tensorrt-10.3.0")
        first = opened(image)["logits"]
        opened(image + 1)
        np.testing.assert_array_equal(first, 2 * image)  # a copy, not the buffer of the next run
        for wrong in (image[:1], image.astype(np.float64)):
            with pytest.raises(InputError, match=r"takes float32 \[2, 3\]"):
                opened(wrong)
        assert len(seen.cuda.memory) == 2
    assert not seen.cuda.memory
    runtimes = len(seen.runtimes)
    plan.write_bytes(plan.read_bytes() + b"\0")
    with pytest.raises(InputError, match="its hash differs"):
        TrtRunner(plan, onnx)
    assert len(seen.runtimes) == runtimes  # refused before TensorRT saw it
    plan.write_bytes(b"no plan of this TensorRT")
    identity = json.loads(sidecar(plan).read_text()) | {"engine_sha256": sha256(plan)}
    sidecar(plan).write_text(json.dumps(identity))
    with pytest.raises(InputError, match=r"10\.3\.0 cannot load .*build it on this machine"):
        TrtRunner(plan, onnx)


def test_dynamic_engines_are_refused(fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    monkeypatch.setattr(fake_trt.Engine, "get_tensor_shape", lambda self, name: (-1, 3))
    with pytest.raises(InputError, match="shapes must be static"):
        TrtRunner(plan, onnx)


def test_an_engine_of_tensorrt_for_rtx_runs_on_a_gpu_that_it_is_for(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("1.7.1.116", name="tensorrt_rtx")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    engine.build_engine(onnx, plan, EngineOptions(capabilities=("8.6",)), precision="fp16", serialize=by_rtx)
    with pytest.raises(EnvironmentLackError, match="running one needs a GPU, and there is none"):
        TrtRunner(plan, onnx)
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 4090", "compute_capability": "8.9"})
    with pytest.raises(InputError, match=r"built for compute_capability 8\.6, but here it is 8\.9"):
        TrtRunner(plan, onnx)
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 3090", "compute_capability": "8.6"})
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    for recorded in (False, True):
        with TrtRunner(plan, onnx, cuda_graph=recorded) as opened:
            assert opened.name == "tensorrt-rtx-1.7.1.116"
            np.testing.assert_array_equal(opened(image)["logits"], 2 * image)
    assert all(runtime.engine_host_code_allowed is False for runtime in seen.runtimes)
    assert not seen.cuda.memory
