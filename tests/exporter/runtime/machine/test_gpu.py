"""Which GPU a program would get, asked of the driver."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from vitrim.exporter.runtime.machine import gpu


class Driver:
    """CUDA's driver library, answering for an Orin."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.failing

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDriverGetVersion(self, value: Any) -> int:  # noqa: N802
        value._obj.value = 12060
        return 0


def test_the_gpu_is_asked_of_the_driver(tmp_path: Path) -> None:
    assert gpu.cuda_device(Driver) == {"gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6"}
    assert gpu.cuda_device(lambda: Driver(failing=100)) is None

    def missing() -> None:
        raise OSError("libcuda.so.1")

    assert gpu.cuda_device(missing) is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    version = tmp_path / "proc/driver/nvidia/version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan\n")
    assert gpu.driver(tmp_path) == "570.86.15"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n")
    assert gpu.driver(tmp_path) == "540.4.0"
