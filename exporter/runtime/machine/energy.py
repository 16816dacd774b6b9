"""Energy an image, in a steady loop of its own, idle power taken off. Reads meters, changes nothing. Torch-free.

Meters: a Jetson's INA3221 (hwmon files, mV and mA; older kernels: iio files, mW), an NVIDIA card by NVML (its energy
counter where it has one, else power samples), a processor's RAPL counters. Verified on file trees and stand-ins with
known energies; unverified on a Jetson and on a card.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .environment import ROOT, _number, _read
from .gpu import pci_address

_PERIOD = 0.02  # seconds between samples of power; the sensors themselves average over about as long
_WHOLE_MODULE = ("VDD_IN", "POM_5V_IN")  # rails that carry all the others
_WITHIN_OTHERS = ("VDDQ_VDD2_1V8AO",)  # AGX Orin: fed by VIN_SYS_5V0, so not added to it


@dataclass(frozen=True)
class Meter:
    """Something that tells power or energy.

    Attributes:
        name: `ina3221`, `nvml-energy`, `nvml-power` or `rapl`.
        rails: what it measures, by the machine's own names.
        total: those rails whose sum is the power told.
        counts: `read` gives joules since some moment, not watts.
        read: by rail, watts or joules.
    """

    name: str
    rails: tuple[str, ...]
    total: tuple[str, ...]
    counts: bool
    read: Callable[[], dict[str, float]]


class Integral:
    """Joules by rail between entry and exit: the counter's difference, or samples of power integrated by trapezoids.

    Attributes:
        joules: by rail.
        seconds: between entry and exit.
        samples: how often the meter was read.
    """

    def __init__(self, meter: Meter, period: float = _PERIOD) -> None:
        self.meter, self.period = meter, period
        self.joules: dict[str, float] = {}
        self.seconds = 0.0
        self._seen: list[tuple[float, dict[str, float]]] = []
        self._failed: list[Exception] = []
        self._stop = threading.Event()

    def __enter__(self) -> Integral:
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not self.meter.counts:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if not self.meter.counts:
            self._thread.join()
        self._look()
        if self._failed:
            raise self._failed[0]
        times = np.array([when for when, _ in self._seen])
        self.seconds = float(times[-1] - times[0])
        for rail in self.meter.rails:
            values = np.array([found[rail] for _, found in self._seen])
            steps = np.diff(times)
            watts = values[-1] - values[0] if self.meter.counts else ((values[1:] + values[:-1]) / 2 * steps).sum()
            self.joules[rail] = float(watts)

    @property
    def samples(self) -> int:
        """How often the meter was read."""
        return len(self._seen)

    def total(self) -> float:
        """Joules of the rails that make up the whole."""
        return sum(self.joules[rail] for rail in self.meter.total)

    def _look(self) -> None:
        value = self.meter.read()
        self._seen.append((time.perf_counter(), value))

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self.period):
                self._look()
        except Exception as error:  # told where the integral is asked for, not in a thread that nobody hears
            self._failed.append(error)


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
    """A Jetson's INA3221 power monitors; None where there is none that tells a rail."""
    rails: dict[str, Callable[[], float]] = {}
    drivers = root / "sys/bus/i2c/drivers"
    for folder in sorted(drivers.glob("ina3221*/*/hwmon/hwmon*")):
        for channel in (1, 2, 3):  # 4 and up are sums of shunt voltages
            label = _read(folder / f"in{channel}_label") or "NC"
            volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            if label != "NC" and _number(volts) is not None and _number(amperes) is not None:
                rails[label] = lambda volts=volts, amperes=amperes: _must(volts) * _must(amperes) / 1e6  # type: ignore[misc]
    for folder in sorted(drivers.glob("ina3221*/*/iio:device*")):  # kernels of JetPack 4
        for channel in (0, 1, 2):
            label, power = _read(folder / f"rail_name_{channel}") or "NC", folder / f"in_power{channel}_input"
            if label != "NC" and _number(power) is not None:
                rails[label] = lambda power=power: _must(power) / 1e3  # type: ignore[misc]
    if not rails:
        return None
    whole = [name for name in rails if name in _WHOLE_MODULE][:1]
    total = whole or [name for name in rails if name not in _WITHIN_OTHERS]
    return Meter("ina3221", tuple(rails), tuple(total), False, lambda: {name: read() for name, read in rails.items()})


def _must(path: Path) -> float:
    """A number that was there when the meter was found."""
    value = _number(path)
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
        return None, f"NVML does not tell this card's power ({error})"
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
    locked = next((folder for folder in packages if _number(folder / "energy_uj") is None), None)
    if locked is not None:
        return None, f"{locked}/energy_uj cannot be read: sudo chmod a+r {locked}/energy_uj"
    counters = {str(_read(folder / "name")): _Unwrapped(folder) for folder in packages}
    names = tuple(counters)
    return Meter("rapl", names, names, True, lambda: {name: read() for name, read in counters.items()}), ""


class _Unwrapped:
    """A RAPL counter in joules that goes on where the register begins again; it must be read once a minute."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "energy_uj"
        self.range = _number(folder / "max_energy_range_uj") or 0.0
        self.last, self.turns = _must(self.path), 0

    def __call__(self) -> float:
        now = _must(self.path)
        self.turns += now < self.last
        self.last = now
        return (now + self.turns * self.range) / 1e6


@dataclass
class _Tally:
    """What the windows of one graph gave."""

    above_idle: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)


def measure(
    runs: Mapping[str, Callable[[], object]],
    batch: int,
    meter: Meter,
    *,
    seconds: float = 6.0,
    windows: int = 3,
    period: float = _PERIOD,
) -> dict[str, Any]:
    """Energy an image of every graph: steady loops, taken in turn, between stretches of idling.

    Idle power is taken anew beside every round of windows, because it drifts with heat.

    Args:
        runs: by graph; each call is one inference and waits for its end.
        batch: images an inference.
        meter: from `find_meter`.
        seconds: of loop a graph, over all windows.
        windows: loops a graph; their spread is the uncertainty.
        period: seconds between samples of power.

    Returns:
        `joules_per_image` by graph (`median` above idle, `range` of the windows, whether all of them
        were `above_idle`, `with_idle`, `watts`), `idle_watts`,
        `meter`, `rails` with which of them are `counted`, `sampling_hz` (0 for a counter) and `seconds`.
    """
    length = seconds / windows
    tallies = {name: _Tally() for name in runs}
    idles: list[float] = []
    samples, sampled = 0, 0.0
    for _ in range(windows):
        idle = _idle(meter, length / 2, period)
        idles.append(idle)
        for name, run in runs.items():
            _loop(run, min(0.3, length / 4))  # floating clocks need a while to come up
            with Integral(meter, period) as spent:
                count = _loop(run, length)
            samples, sampled = samples + spent.samples, sampled + spent.seconds
            joules, images = spent.total(), count * batch
            tallies[name].above_idle.append((joules - idle * spent.seconds) / images)
            tallies[name].whole.append(joules / images)
            tallies[name].watts.append(joules / spent.seconds)
    return {
        "unit": "J",
        "joules_per_image": {name: _told(tally) for name, tally in tallies.items()},
        "idle_watts": float(np.median(idles)),
        "meter": meter.name,
        "rails": list(meter.rails),
        "counted": list(meter.total),
        "sampling_hz": 0.0 if meter.counts else samples / sampled,
        "seconds": seconds,
        "windows": windows,
    }


def _told(tally: _Tally) -> dict[str, Any]:
    above: Sequence[float] = tally.above_idle
    return {
        "median": float(np.median(above)),
        "range": [min(above), max(above)],
        "above_idle": min(above) > 0,
        "with_idle": float(np.median(tally.whole)),
        "watts": float(np.median(tally.watts)),
    }


def _idle(meter: Meter, seconds: float, period: float) -> float:
    """Watts while this process waits."""
    with Integral(meter, period) as spent:
        time.sleep(seconds)
    return spent.total() / spent.seconds


def _loop(run: Callable[[], object], seconds: float) -> int:
    """Run for that long; how often."""
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        run()
        count += 1
    return count


def energy(
    runs: Mapping[str, Callable[[], object]], batch: int, kind: str, seconds: float = 6.0, root: Path = ROOT
) -> dict[str, Any]:
    """`measure` with this machine's meter; `joules_per_image` None and a `reason` where there is none.

    Args:
        runs, batch, seconds: as for `measure`.
        kind: `gpu` or `cpu`, what the runs use.
        root: of the file system, for tests.
    """
    meter, reason = find_meter(kind, root)
    if meter is None:
        return {"joules_per_image": None, "reason": reason}
    try:
        return measure(runs, batch, meter, seconds=seconds)
    except OSError as error:
        return {"joules_per_image": None, "reason": f"the meter failed ({error})"}


def describe(spent: Mapping[str, Any]) -> list[str]:
    """`energy` of a benchmark for a person, a line a graph."""
    if spent["joules_per_image"] is None:
        return [f"not measured: {spent['reason']}"]
    lines = [
        f"{name}: not measurably above idle; take longer loops or a finer meter"
        if not found["above_idle"]
        else f"{name} {found['median']:.4g} J an image above idle ({found['range'][0]:.4g} to {found['range'][1]:.4g})"
        for name, found in spent["joules_per_image"].items()
    ]
    return [*lines, f"idle {spent['idle_watts']:.2f} W, by {spent['meter']}: {' + '.join(spent['counted'])}"]
