"""Meters of power and energy that a machine has. They are read, never changed. Torch-free.

A Jetson's INA3221 (hwmon files, mV and mA; older kernels: iio files, mW), an NVIDIA card by NVML (its energy counter
where it has one, else power samples), a processor's RAPL counters. Verified on file trees and stand-ins with known
energies; NVML's counter was read on an H100; unverified on a Jetson.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.cores import ROOT
from ...core.sysfs import read_number, read_text
from .gpu import pci_address

_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")  # rails that carry all the others
_WITHIN_OTHERS = ("VDDQ_VDD2_1V8AO",)  # AGX Orin: fed by VIN_SYS_5V0, so not added to it


@dataclass(frozen=True)
class Meter:
    """Something that measures power or energy.

    Attributes:
        name: `ina3221`, `nvml-energy`, `nvml-power` or `rapl`.
        rails: what it measures, by the machine's own names.
        total: those rails whose sum is the whole power.
        counts: `read` gives joules since some moment, not watts.
        read: by rail, watts or joules.
    """

    name: str
    rails: tuple[str, ...]
    total: tuple[str, ...]
    counts: bool
    read: Callable[[], dict[str, float]]


def find_meter(kind: str, root: Path = ROOT, nvml: Callable[[], Any] | None = None) -> tuple[Meter | None, str]:
    """The meter for what a benchmark runs on.

    Args:
        kind: `gpu` or `cpu`; a Jetson has one meter for both.
        root: of the file system, for tests.
        nvml: imports pynvml, for tests.

    Returns:
        the meter and "", or None and why there is none, with what to do.
    """
    board = jetson_meter(root)
    if board is not None:
        return board, ""
    if kind == "gpu":
        return nvml_meter(nvml or _pynvml)
    return rapl_meter(root)


def jetson_meter(root: Path = ROOT) -> Meter | None:
    """A Jetson's INA3221 power monitors; None where there is no rail to read."""
    rails: dict[str, Callable[[], float]] = {}
    drivers = root / "sys/bus/i2c/drivers"
    for folder in sorted(drivers.glob("ina3221*/*/hwmon/hwmon*")):
        for channel in (1, 2, 3):  # 4 and up are sums of shunt voltages
            label = read_text(folder / f"in{channel}_label") or "NC"
            volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            if label != "NC" and read_number(volts) is not None and read_number(amperes) is not None:
                rails[label] = lambda volts=volts, amperes=amperes: _must(volts) * _must(amperes) / 1e6  # type: ignore[misc]
    for folder in sorted(drivers.glob("ina3221*/*/iio:device*")):  # kernels of JetPack 4
        for channel in (0, 1, 2):
            label, power = read_text(folder / f"rail_name_{channel}") or "NC", folder / f"in_power{channel}_input"
            if label != "NC" and read_number(power) is not None:
                rails[label] = lambda power=power: _must(power) / 1e3  # type: ignore[misc]
    if not rails:
        return None
    whole = [name for name in rails if name in _WHOLE_MODULE][:1]
    total = whole or [name for name in rails if name not in _WITHIN_OTHERS]
    return Meter("ina3221", tuple(rails), tuple(total), False, lambda: {name: read() for name, read in rails.items()})


def _must(path: Path) -> float:
    """A number that was there when the meter was found."""
    value = read_number(path)
    if value is None:
        raise OSError(f"{path} can no longer be read")
    return value


def _pynvml() -> Any:
    import pynvml

    return pynvml


def nvml_meter(load: Callable[[], Any]) -> tuple[Meter | None, str]:
    """The card that CUDA would take, by nvidia-ml-py; the energy counter of Volta and newer, else power."""
    try:
        pynvml = load()
    except ImportError:
        return None, "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    try:
        pynvml.nvmlInit()
        address = pci_address()  # CUDA and NVML number cards differently
        card = pynvml.nvmlDeviceGetHandleByPciBusId(address) if address else pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(card)
        rail = name.decode() if isinstance(name, bytes) else str(name)
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
        except pynvml.NVMLError:
            pynvml.nvmlDeviceGetPowerUsage(card)
            return Meter(
                "nvml-power", (rail,), (rail,), False, lambda: {rail: pynvml.nvmlDeviceGetPowerUsage(card) / 1e3}
            ), ""
    except pynvml.NVMLError as error:
        return None, f"NVML does not report this card's power ({error})"
    return Meter(
        "nvml-energy", (rail,), (rail,), True, lambda: {rail: pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1e3}
    ), ""


def rapl_meter(root: Path = ROOT) -> tuple[Meter | None, str]:
    """The processor's packages by powercap; their counters are for root only on most systems."""
    packages = [
        folder
        for folder in sorted((root / "sys/class/powercap").glob("*-rapl:*"))
        if folder.name.count(":") == 1 and "mmio" not in folder.name and (folder / "name").exists()
    ]
    if not packages:
        return None, "this machine has no meter that can be read (no INA3221, no RAPL)"
    locked = next((folder for folder in packages if read_number(folder / "energy_uj") is None), None)
    if locked is not None:
        return None, f"{locked}/energy_uj cannot be read: sudo chmod a+r {locked}/energy_uj"
    counters = {str(read_text(folder / "name")): _Unwrapped(folder) for folder in packages}
    names = tuple(counters)
    return Meter("rapl", names, names, True, lambda: {name: read() for name, read in counters.items()}), ""


class _Unwrapped:
    """A RAPL counter in joules that goes on where the register begins again; it must be read once a minute."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "energy_uj"
        self.range = read_number(folder / "max_energy_range_uj") or 0.0
        self.last, self.turns = _must(self.path), 0

    def __call__(self) -> float:
        now = _must(self.path)
        self.turns += now < self.last
        self.last = now
        return (now + self.turns * self.range) / 1e6
