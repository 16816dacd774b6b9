"""Options of a build: what a TensorRT or a GPU cannot do is refused before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.core.targets import PRECISIONS
from vitrim.exporter.runtime.tensorrt import versions as trt
from vitrim.exporter.runtime.tensorrt.family import RTX
from vitrim.exporter.runtime.tensorrt.options import EngineOptions, refuse_options


def test_bf16_needs_ampere() -> None:
    with pytest.raises(UnsupportedError, match=r"needs compute capability 8\.0, but this GPU has 7\.5"):
        refuse_options(EngineOptions(), "bf16", (10, 3), (7, 5))
    refuse_options(EngineOptions(), "bf16", (10, 3), (8, 7))
    refuse_options(EngineOptions(), "fp16", (10, 3), (7, 5))
    with pytest.raises(InputError, match="no engine precision 'fp8'"):
        trt.typing_for((11, 0), "fp8")  # type: ignore[arg-type]


def test_what_portability_a_gpu_allows() -> None:
    with pytest.raises(UnsupportedError, match=r"built on compute capability 8\.0 or newer"):
        refuse_options(EngineOptions(hardware_compatible="ampere_plus"), "fp16", (10, 3), (7, 5))
    portable = EngineOptions(hardware_compatible="same_compute_capability")
    with pytest.raises(UnsupportedError, match="not supported on a Jetson"):
        refuse_options(portable, "fp16", (10, 9), (8, 7), jetson=True)
    with pytest.raises(InputError, match="no hardware compatibility 'any'"):
        refuse_options(EngineOptions(hardware_compatible="any"), "fp16", (10, 9), None)  # type: ignore[arg-type]
    assert trt.runs_on((8, 6), (10, 3))
    assert trt.runs_on((10, 3), (11, 4))
    assert not trt.runs_on((8, 6), (11, 4))
    assert not trt.runs_on((10, 16), (10, 3))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"timing_cache": "timings"}, "timing cache"),
        ({"version_compatible": True}, "version-compatible engines"),
        ({"hardware_compatible": "ampere_plus"}, "hardware compatibility"),
        ({"dla_core": 0}, "DLA cores"),
    ],
)
def test_what_tensorrt_for_rtx_has_no_need_of(given: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"TensorRT for RTX knows no {what}"):
        refuse_options(EngineOptions(**given), "fp16", (1, 7), None, family=RTX)


def test_tensorrt_for_rtx_takes_the_others_and_no_gpu_s_word() -> None:
    options = EngineOptions(workspace_mib=64, timing_cache=False, capabilities=("8.6",), strict=False)
    for precision in PRECISIONS:
        refuse_options(options, precision, (1, 7), (7, 5), family=RTX)  # the GPU here is none that it is for
    with pytest.raises(UnsupportedError, match="compute capabilities are TensorRT for RTX's"):
        refuse_options(options, "fp16", (10, 3), (8, 7))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("9.0",), r"no compute capability '9\.0' \(it has 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1\)"),
        (("8.6", "8.6"), r"named twice: 8\.6, 8\.6"),
        (("x" * 500,), "no compute capability 'xxx"),
    ],
)
def test_capabilities_are_known_names(names: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        EngineOptions(capabilities=names)
    assert len(str(caught.value)) < 250
