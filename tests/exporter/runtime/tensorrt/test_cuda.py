"""libcudart: its refusals are given, and a capture that fails ends."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, UnsupportedError
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import cuda


def test_work_that_fails_during_capture_ends_it(fake_trt: Any) -> None:
    library = fake_trt.Cuda()

    def fail() -> None:
        raise UnsupportedError("the engine failed to run")

    with pytest.raises(UnsupportedError, match="the engine failed to run"):
        cuda.Cuda(library).capture(fail)
    assert library.calls == ["begin", "end", "destroy graph"]


def test_the_real_cuda_runtime_is_called_and_its_refusal_is_given() -> None:
    found = [path for path in map(Path, sys.path) if (path / "nvidia").is_dir()]
    libraries = [str(path) for root in found for path in (root / "nvidia").glob("*/lib/libcudart.so.*")]
    if not libraries or gpu.cuda_device() is not None:
        pytest.skip("needs the CUDA runtime of pip, and no GPU")
    with pytest.raises(UnsupportedError, match=r"cudaStreamCreate failed with CUDA error \d+ \([a-zA-Z]"):
        cuda.Cuda(cuda.declare(ctypes.CDLL(libraries[0])))
    with pytest.raises(EnvironmentLackError, match="does not work with this driver"):
        cuda.load(lambda: libraries)
