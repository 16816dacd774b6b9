"""Options of a build: what a TensorRT or a GPU cannot do is refused before anything is built."""

from __future__ import annotations

import pytest

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.runtime.tensorrt import versions as trt
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
