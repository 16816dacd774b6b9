"""Execution providers by target: what they are told, which versions go together, and that only the CPU ran is said."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import doubler

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime import providers
from vitrim.exporter.runtime.choose import runner_for
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.runners import OrtRunner


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_tensorrt_provider_keeps_engines_of_one_graph_and_machine(
    monkeypatch: pytest.MonkeyPatch, caches: Path
) -> None:
    wanted = get_target("ort-trt").providers
    assert wanted == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    options = providers.provider_options(wanted, "a" * 64, tensorrt="10.9.0")
    folder = options[0]["trt_engine_cache_path"]
    assert options == [
        {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": folder,
        },
        {"use_tf32": "0"},
        {},
    ]
    assert Path(folder).is_relative_to(caches / "onnxruntime")
    assert Path(folder).stat().st_mode & 0o077 == 0

    def path(graph: str = "a" * 64, tensorrt: str = "10.9.0") -> str:
        return providers.provider_options(wanted, graph, tensorrt=tensorrt)[0]["trt_engine_cache_path"]

    seen = {folder, path("b" * 64), path(tensorrt="10.10.0")}
    monkeypatch.setattr(providers, "version", lambda name: "9.9")
    seen.add(path())
    monkeypatch.setattr(gpu, "driver", lambda root=None: "999.1")
    seen.add(path())
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6"})
    seen.add(path())
    assert len(seen) == 6
    assert path() in seen  # nothing but those counts


@pytest.mark.parametrize(
    ("version", "precision", "flags"),
    [
        ("8.6.1", "fp32", set()),
        ("8.6.1", "fp16", {"trt_fp16_enable"}),
        ("8.6.1", "int8", {"trt_fp16_enable", "trt_int8_enable"}),
        ("10.9.0", "fp16", set()),  # strongly typed without flags
        ("11.4.0", "int8", set()),
    ],
)
def test_precision_flags_of_the_tensorrt_provider(version: str, precision: Any, flags: set[str]) -> None:
    (options,) = providers.provider_options([providers.TENSORRT], "a", precision, tensorrt=version)
    assert {name for name in options if "fp16" in name or "int8" in name} == flags


def test_an_engine_cache_that_others_may_write_to_is_refused(caches: Path) -> None:
    folder = Path(providers.provider_options([providers.TENSORRT], "a", tensorrt="10.9.0")[0]["trt_engine_cache_path"])
    folder.chmod(0o777)
    with pytest.raises(InputError, match="no cache folder of your own"):
        providers.provider_options([providers.TENSORRT], "a", tensorrt="10.9.0")


@pytest.mark.parametrize(
    ("onnxruntime", "tensorrt", "remedy"),
    [
        ("1.31.1", "11.4.0", None),
        ("1.26.0", "11.4.0", "onnxruntime-gpu>=1.27'"),
        ("1.22.0", "10.9.0", None),
        ("1.17.3", "10.3.0", "onnxruntime-gpu>=1.18'"),
        ("1.17.3", "8.6.1", None),
        ("1.22.0", "8.6.1", "onnxruntime-gpu>=1.14,<1.18'"),
        ("1.22.0", "9.3.0", "install TensorRT 10 or 11"),
    ],
)
def test_which_versions_go_together(onnxruntime: str, tensorrt: str, remedy: str | None) -> None:
    found = providers.pair_problem(onnxruntime, tensorrt)
    assert found is None if remedy is None else remedy in str(found)


@pytest.mark.parametrize(
    ("number", "version"),
    [(8600, "8.6.0"), (8501, "8.5.1"), (100300, "10.3.0"), (101601, "10.16.1"), (110400, "11.4.0")],
)
def test_the_library_s_version(number: int, version: str) -> None:
    def load(name: str) -> Any:
        if name != "libnvinfer.so.8":
            raise OSError(name)
        return types.SimpleNamespace(getInferLibVersion=lambda: number)

    assert providers.tensorrt_library(load) == version


def test_without_the_library_there_is_no_version() -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    assert providers.tensorrt_library(load) is None


def test_options_reach_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(model: bytes, settings: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        found = real(model, settings, providers=["CPUExecutionProvider"])
        monkeypatch.setattr(found, "get_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    runner, why = runner_for(doubler(), get_target("ort-cuda"))
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]]
    assert (runner.name, why) == ("onnxruntime-cuda", None)


def test_what_onnxruntime_prints_when_a_provider_fails_does_not_reach_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession

    def session(model: bytes, settings: Any, providers: list[Any]) -> Any:
        print("*************** EP Error ***************")  # as its fallback does, on standard output
        return real(model, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(EnvironmentLackError, match="cannot start it"):
        OrtRunner(doubler(), ("CUDAExecutionProvider",))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("ort-cpu", None),
        ("ort-cuda", "the graph is for ort-cuda.*has no CUDAExecutionProvider"),
        ("ort-trt", "the graph is for ort-trt.*has no TensorrtExecutionProvider"),
        (
            "trt-10.3",
            "the graph is for trt-10.3, but only onnxruntime's CPU provider ran it; an engine proves the target",
        ),
    ],
)
def test_it_is_said_when_only_the_cpu_ran_a_graph(target: str, why: str | None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler())
    for model in (path, doubler()):
        runner, said = runner_for(model, get_target(target), threads=1)
        image = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(runner(image)["logits"], 2 * image)
        assert runner.name == "onnxruntime-cpu"
        if why is None:
            assert said is None
        else:
            assert re.match(why, str(said))
