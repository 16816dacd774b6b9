"""Which GPU a CUDA program would get here, asked of the driver itself; torch-free, and it works on a Jetson."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .environment import query_gpu

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: compute capability


def _load() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _first(load: Callable[[], Any]) -> tuple[Any, ctypes.c_int] | None:
    """The driver's library and its device 0; None without a driver or a device."""
    try:
        cuda = load()
    except OSError:
        return None
    device = ctypes.c_int()
    return None if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0) else (cuda, device)


def cuda_device(load: Callable[[], Any] = _load) -> dict[str, str] | None:
    """Name, compute capability and CUDA version of device 0, CUDA_VISIBLE_DEVICES respected; None without a driver.

    Verified on an H100.
    """
    first = _first(load)
    if first is None:
        return None
    (cuda, device), value, name = first, ctypes.c_int(), ctypes.create_string_buffer(256)
    found: dict[str, str] = {}
    if cuda.cuDeviceGetName(name, len(name), device) == 0:
        found["gpu"] = name.value.decode(errors="replace")
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) == 0:
            numbers.append(str(value.value))
    if len(numbers) == 2:
        found["compute_capability"] = ".".join(numbers)
    if cuda.cuDriverGetVersion(ctypes.byref(value)) == 0:
        found["cuda"] = f"{value.value // 1000}.{value.value % 1000 // 10}"
    return found


def pci_address(load: Callable[[], Any] = _load) -> str | None:
    """PCI address of CUDA's device 0, which other tools know a card by; None without a driver."""
    first = _first(load)
    if first is None:
        return None
    (cuda, device), address = first, ctypes.create_string_buffer(32)
    return address.value.decode() if cuda.cuDeviceGetPCIBusId(address, len(address), device) == 0 else None


def driver(root: Path = Path("/")) -> str | None:
    """Version of the kernel driver, such as 570.86; None where there is none."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)", text)
    if found:
        return found[1]
    asked = query_gpu(["driver_version"])
    return asked[0] if asked else None


def describe(root: Path = Path("/")) -> dict[str, str | None]:
    """`gpu`, `compute_capability`, `cuda` and `driver` of the GPU that an engine would run on; None where unknown."""
    found: dict[str, str | None] = {"gpu": None, "compute_capability": None, "cuda": None, "driver": driver(root)}
    found.update(cuda_device() or {})
    if found["gpu"] is None:
        asked = query_gpu(["name", "compute_cap"])
        if asked:
            found.update(gpu=asked[0], compute_capability=asked[1])
    return found
