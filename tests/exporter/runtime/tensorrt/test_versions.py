"""The TensorRT that is here: how each version takes the precision, and what is missing where it is not."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError
from vitrim.exporter.core.targets import PRECISIONS
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.machine.jetpack import tensorrt_remedy
from vitrim.exporter.runtime.tensorrt import engine
from vitrim.exporter.runtime.tensorrt import versions as trt
from vitrim.exporter.runtime.tensorrt.family import RTX, rtx_runs_on
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy


@pytest.mark.parametrize(
    ("text", "version", "typed", "typed_fp16", "flag"),
    [
        ("8.5.2.2", (8, 5), False, False, True),
        ("8.6.1", (8, 6), False, False, True),
        ("9.3.0", (9, 3), False, False, True),
        ("10.3.0", (10, 3), False, True, False),
        ("10.11.0.33", (10, 11), False, True, False),
        ("10.12.0.36", (10, 12), True, True, False),
        ("11.4.0.106", (11, 4), True, True, False),
    ],
)
def test_typing_goes_by_version(text: str, version: tuple[int, int], typed: bool, typed_fp16: bool, flag: bool) -> None:
    assert trt.version_of(text) == version
    assert trt.typing_for(version, "fp32").strong is typed
    fp16, int8 = trt.typing_for(version, "fp16"), trt.typing_for(version, "int8")
    assert (fp16.strong, fp16.fp16_flag, fp16.int8_flag) == (typed_fp16, flag, False)
    assert (int8.strong, int8.fp16_flag, int8.int8_flag) == (typed_fp16, flag, flag)
    assert not trt.typing_for(version, "fp32").fp16_flag


def test_a_version_that_cannot_be_read() -> None:
    with pytest.raises(EnvironmentLackError, match="'main' cannot be read"):
        trt.version_of("main")


def jetson(root: Path) -> Path:
    (root / "etc").mkdir()
    (root / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    return root


def test_what_is_missing_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(trt, "_SYSTEM_ROOT", tmp_path)
    assert "pip install 'vitrim[tensorrt]'" in str(by_polygraphy.missing())
    jetson(tmp_path)
    assert "sudo apt install python3-libnvinfer" in str(by_polygraphy.missing())
    with pytest.raises(EnvironmentLackError, match="TensorRT cannot be imported"):
        engine.build_engine("a.onnx", "a.engine")
    assert "nvidia-l4t-dla-compiler" in tensorrt_remedy("libnvdla_compiler.so: cannot open", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    assert "is empty, its libraries are missing" in str(by_polygraphy.missing())


def test_tensorrt_for_rtx_is_strongly_typed_by_its_family_and_not_by_its_version() -> None:
    for precision in PRECISIONS:
        typing = trt.typing_for((1, 7), precision, RTX)
        assert (typing.strong, typing.fp16_flag, typing.int8_flag) == (True, False, False)
    assert trt.typing_for((8, 5), "fp16").fp16_flag  # a version below those is old for the other family


def test_running_asks_the_driver_and_makes_no_builder(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trt.install("8.6.0")
    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", None)
    assert trt.runtime_missing() is None
    assert str(trt.builder_missing()).startswith("TensorRT 8.6.0 finds no GPU ('NoneType'")
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    assert trt.runtime_missing() == "TensorRT 8.6.0 finds no GPU: check nvidia-smi, or tegrastats on a Jetson"


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ("7.5", True),
        ("8.7", False),
        ("8.9", True),
        ("9.0", False),
        ("10.0", False),
        ("11.0", False),
        ("12.1", True),
        ("12.2", True),
    ],
)
def test_gpus_that_tensorrt_for_rtx_runs_on(capability: str, runs: bool) -> None:
    assert rtx_runs_on(capability) is runs


def test_tensorrt_for_rtx_builds_where_there_is_no_gpu_and_runs_where_there_is_one(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trt.install("1.7.1.116", name="tensorrt_rtx")
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    assert trt.builder_missing(RTX) is None
    told = "TensorRT for RTX 1.7.1.116 builds engines here, but running one needs a GPU, and there is none"
    assert (trt.runtime_missing(RTX), trt.state_of_rtx()) == (told, told)
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 4090"})
    assert trt.runtime_missing(RTX) is None
    assert trt.state_of_rtx().startswith("TensorRT for RTX 1.7.1.116 builds engines here, and there is a GPU")
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "H100", "compute_capability": "9.0"})
    assert str(trt.runtime_missing(RTX)).startswith(
        "TensorRT for RTX 1.7.1.116 builds engines here, but runs none on this GPU of compute capability 9.0"
    )
    assert trt.builder_missing(RTX) is None
    fake_trt.install("1.1.0", name="tensorrt_rtx")
    assert "1.1.0 is too old: vitrim needs 1.2" in str(trt.builder_missing(RTX))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert trt.state_of_rtx().startswith("not usable: TensorRT for RTX cannot be imported")


@pytest.mark.parametrize("there", [True, False])
def test_the_remedy_is_an_extra_where_there_are_wheels(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt, "has_rtx_wheel", lambda: there)
    wheels = "NVIDIA has wheels for Linux on x86_64 and aarch64 and for Windows, but none for this machine"
    assert trt.remedy_for(RTX).startswith("pip install 'vitrim[rtx]'" if there else wheels)


def test_a_tensorrt_that_is_too_old_is_refused(fake_trt: Any) -> None:
    fake_trt.install("8.2.1")
    assert "8.2.1 is too old: vitrim needs 8.5" in str(by_polygraphy.missing())


def test_without_a_gpu_tensorrt_s_own_reason_is_given(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trt.install("8.6.0")

    def no_gpu(logger: Any) -> None:  # as 8.6.0 does it, measured
        logger.log(2, "CUDA initialization failure with error: 35. Please check your CUDA installation: http://x")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", no_gpu)
    assert str(by_polygraphy.missing()).startswith(
        "TensorRT 8.6.0 finds no GPU (CUDA initialization failure with error: 35): check nvidia-smi"
    )
