"""Energy per image, in a steady loop of its own, idle power taken off. Torch-free.

Unverified on a Jetson and on a card; see `meters`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...core.cores import ROOT
from ...core.records import Record, optional
from .meters import Meter, find_meter

_PERIOD = 0.02  # seconds between samples of power; the sensors themselves average over about as long


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
        except Exception as error:  # raised where the integral is asked for, not in a thread that nobody hears
            self._failed.append(error)


@dataclass(frozen=True)
class GraphEnergy(Record):
    """Energy of one graph.

    Attributes:
        median: joules per image above idle, over the windows.
        range: least and most of the windows.
        above_idle: whether all windows drew more than idling does.
        with_idle: joules per image, idle power included.
        watts: power while it ran.
    """

    median: float
    range: tuple[float, float]
    above_idle: bool
    with_idle: float
    watts: float


@dataclass(frozen=True)
class Energy(Record):
    """Energy of a benchmark's graphs, or why there is none.

    Attributes:
        joules_per_image: by graph; None where nothing was measured.
        reason: why not.
        unit: of energy.
        idle_watts: power while this process waits.
        meter: its name.
        rails: what the meter measures.
        counted: those rails whose sum is the whole power.
        sampling_hz: readings per second; 0 for a counter.
        seconds: of loop per graph.
        windows: loops per graph.
    """

    joules_per_image: dict[str, GraphEnergy] | None
    reason: str | None = optional()
    unit: str | None = optional()
    idle_watts: float | None = optional()
    meter: str | None = optional()
    rails: tuple[str, ...] = optional(())
    counted: tuple[str, ...] = optional(())
    sampling_hz: float | None = optional()
    seconds: float | None = optional()
    windows: int | None = optional()

    def __post_init__(self) -> None:
        if self.joules_per_image is not None and self.idle_watts is None:
            raise ValueError("lacks idle_watts, which measured joules come with")

    def per_image(self, graph: str) -> float | None:
        """Joules per image above idle; None where they were not measured, or are not measurably above idle."""
        found = (self.joules_per_image or {}).get(graph)
        return found.median if found is not None and found.above_idle else None

    def lines(self) -> list[str]:
        """For a person, a line per graph."""
        if self.joules_per_image is None:
            return [f"not measured: {self.reason}"]
        lines = [
            f"{name}: not measurably above idle; take longer loops or a finer meter"
            if not found.above_idle
            else f"{name} {found.median:.4g} J per image above idle ({found.range[0]:.4g} to {found.range[1]:.4g})"
            for name, found in self.joules_per_image.items()
        ]
        return [*lines, f"idle {self.idle_watts:.2f} W, by {self.meter}: {' + '.join(self.counted)}"]


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
) -> Energy:
    """Energy per image of every graph: steady loops, taken in turn, between stretches of idling.

    Idle power is taken anew beside every round of windows, because it drifts with heat.

    Args:
        runs: by graph; each call is one inference and waits for its end.
        batch: images per inference.
        meter: from `find_meter`.
        seconds: of loop per graph, over all windows.
        windows: loops per graph; their spread is the uncertainty.
        period: seconds between samples of power.
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
    return Energy(
        joules_per_image={name: _summed_up(tally) for name, tally in tallies.items()},
        unit="J",
        idle_watts=float(np.median(idles)),
        meter=meter.name,
        rails=meter.rails,
        counted=meter.total,
        sampling_hz=0.0 if meter.counts else samples / sampled,
        seconds=seconds,
        windows=windows,
    )


def _summed_up(tally: _Tally) -> GraphEnergy:
    above: Sequence[float] = tally.above_idle
    return GraphEnergy(
        median=float(np.median(above)),
        range=(min(above), max(above)),
        above_idle=min(above) > 0,
        with_idle=float(np.median(tally.whole)),
        watts=float(np.median(tally.watts)),
    )


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


def measure_here(
    runs: Mapping[str, Callable[[], object]], batch: int, kind: str, seconds: float = 6.0, root: Path = ROOT
) -> Energy:
    """`measure` with this machine's meter; without one, the reason.

    Args:
        runs, batch, seconds: as for `measure`.
        kind: `gpu` or `cpu`, what the runs use.
        root: of the file system, for tests.
    """
    meter, reason = find_meter(kind, root)
    if meter is None:
        return Energy(None, reason)
    try:
        return measure(runs, batch, meter, seconds=seconds)
    except OSError as error:
        return Energy(None, f"the meter failed ({error})")
