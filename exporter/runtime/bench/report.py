"""A benchmark: latencies by graph, the ratios that matter, and what may be claimed of them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...core import layout
from ...core.errors import InputError
from ...core.layout import Kind
from ...core.records import Record, optional
from ..machine.energy import Energy
from .blocks import ByBlock
from .stats import FEWEST, Distribution, Ratio, paired_ratio, summarize

if TYPE_CHECKING:
    from ..bundles.manifest import Manifest

LATER = "to be timed on the device: python3 run_on_device.py bench"  # of a graph whose target does not run here
LEAST, MOST = 1e-9, 1e12  # of a median in milliseconds, and of a ratio of two


@dataclass(frozen=True)
class Untimed(Record):
    """A way to run an engine that could not be timed, and why."""

    reason: str


@dataclass(frozen=True)
class TimedBundle(Record):
    """Which graphs a benchmark timed: what must be the same for two benchmarks to be comparable.

    Attributes:
        target, precision, batch: of the bundle; None where a benchmark does not say.
        graph_sha256, dense_sha256: of the pruned graph and of the dense one.
        budget_sha256, widths_sha256: of the plans, where there are such.
    """

    target: str | None = None
    precision: str | None = None
    batch: int | None = None
    graph_sha256: str | None = optional()
    dense_sha256: str | None = optional()
    budget_sha256: str | None = optional()
    widths_sha256: str | None = optional()

    @classmethod
    def of(cls, manifest: Manifest) -> TimedBundle:
        """What a bundle's manifest says of its graphs."""
        hashes = {name: entry.sha256 for name, entry in manifest.files.items()}
        return cls(
            manifest.target,
            manifest.precision.name,
            manifest.batch,
            hashes.get(Kind.PRUNED.filename),
            hashes.get(Kind.DENSE.filename),
            hashes.get(layout.BUDGET),
            hashes.get(layout.WIDTHS),
        )


@dataclass(frozen=True)
class Board(Record):
    """What is read of a Jetson's state, see `machine.environment.jetson_state`."""

    power_mode: str | None = None
    throttling: tuple[str, ...] = ()
    overcurrent_events: int | None = None


@dataclass(frozen=True)
class Loaded(Record):
    """How OpenVINO loaded a graph, see `openvino.runner`."""

    version: str | None = None
    device: str | None = None
    hint: str | None = None
    threads: int | None = None
    streams: int | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Conditions(Record):
    """What is read of a benchmark's environment, whose further keys are for a reader, see `machine.environment`."""

    runtime: str = "unknown"
    cpu: str = "unknown"
    threads: int | None = None
    gpu: str | None = None
    device: Loaded = Loaded()
    throughput: Loaded = Loaded()
    cpu_only: str | None = None
    warning: str | None = None
    clocks: str = "unknown"
    clock_advice: tuple[str, ...] = ()
    throttle_events: int | None = None
    throttle_events_after: int | None = None
    jetson: Board = Board()
    jetson_after: Board = Board()


def _require_plausible(what: str, count: int, median: float, interval: tuple[float, float]) -> None:
    """Refuse, with a ValueError, what no clock measures and nothing can be divided by."""
    low, high = interval
    if count < 1 or not LEAST <= low <= high <= MOST or not LEAST <= median <= MOST:
        raise ValueError(f"has {what} as {median:g} in {low:g} to {high:g}, of {count} rounds; no clock measures that")


def conditions_of(environment: Mapping[str, Any]) -> Conditions:
    """What is read of an environment; keys that are missing, or null, have their defaults.

    Raises:
        ValueError: a key has another type.
    """
    plain = _known(environment, Conditions)
    for name, kind in {"jetson": Board, "jetson_after": Board, "device": Loaded, "throughput": Loaded}.items():
        if isinstance(plain.get(name), Mapping):
            plain[name] = _known(plain[name], kind)
    try:
        return Conditions.from_json(plain, "environment")
    except InputError as error:
        raise ValueError(f"has an {error}") from error


def _known(data: Mapping[str, Any], kind: type[Record]) -> dict[str, Any]:
    return {one.name: data[one.name] for one in fields(kind) if data.get(one.name) is not None}


@dataclass(frozen=True)
class Prediction(Record):
    """What a latency table predicted of the pruned graph, and what it takes.

    Attributes:
        predicted_ms, measured_ms: of the pruned graph.
        predicted_speedup, measured_speedup: over the dense graph.
        judged_by: which of them is held against each other: `ms` where a latency was asked for and the machine was not
            busy, else `speedup`, which other work on it moves less.
        error: predicted over measured time, less 1, by that.
        correction_ms: that is in the prediction, from a first export.
    """

    predicted_ms: float
    measured_ms: float
    predicted_speedup: float
    measured_speedup: float
    judged_by: Literal["ms", "speedup"]
    error: float
    correction_ms: float = 0.0


@dataclass(frozen=True)
class Bench(Record):
    """An interleaved benchmark of an export's graphs.

    Attributes:
        batch: images per inference.
        distributions: by graph, see `layout.Kind`; `dense` and `pruned` are always there.
        ratios: `speedup` is dense / pruned, `overhead` pruned / floor, `ceiling` dense / floor, and `over_<kind>` the
            pruned graph in a wider precision / pruned.
        environment: the machine, before, during and after; `machine.environment` has the keys.
        speedup_by_repeat: median of dense / pruned within each repeat, in which everything was loaded anew.
        modes: of an engine, the pruned one run in every way.
        energy: where it was asked for.
        bundle: which graphs these were, where they were a bundle's.
        attention: by graph, which form of attention runs here fastest, of an export.
        prediction: of a plan that was solved on a latency table of this machine.
        by_block: of the dense and the pruned graph, where it was counted.
    """

    DERIVED = ("unit", "speedup", "overhead", "claimed", "verdict", "images_per_second")

    batch: int
    distributions: dict[str, Distribution]
    ratios: dict[str, Ratio]
    environment: dict[str, Any]
    speedup_by_repeat: tuple[float, ...] = ()
    modes: dict[str, Distribution | Untimed] | None = optional()
    energy: Energy | None = optional()
    bundle: TimedBundle | None = optional()
    attention: dict[str, Any] | None = optional()
    prediction: Prediction | None = optional()
    by_block: ByBlock | None = optional()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"has the batch {self.batch}, but a batch has an image")
        for name, found in self.distributions.items():
            _require_plausible(f"the latency of {name}", found.samples, found.median, found.median_interval)
        for name, ratio in self.ratios.items():
            _require_plausible(f"the ratio {name}", ratio.pairs, ratio.median, ratio.interval)
        conditions_of(self.environment)
        for name in (Kind.DENSE, Kind.PRUNED):
            if name not in self.distributions:
                raise ValueError(f"lacks the latencies of the {name} graph")
        if "speedup" not in self.ratios:
            raise ValueError("lacks the ratio speedup")

    @property
    def unit(self) -> str:
        """Of all latencies."""
        return "ms"

    @property
    def dense(self) -> Distribution:
        """Latencies of the dense graph."""
        return self.distributions[Kind.DENSE]

    @property
    def pruned(self) -> Distribution:
        """Latencies of the pruned graph."""
        return self.distributions[Kind.PRUNED]

    @property
    def speedup(self) -> float:
        """Median over rounds of dense / pruned."""
        return self.ratios["speedup"].median

    @property
    def speedup_interval(self) -> tuple[float, float]:
        """Of 95 %."""
        return self.ratios["speedup"].interval

    @property
    def overhead(self) -> float | None:
        """Median over rounds of pruned / floor: 1 is free; None without a floor."""
        return self.ratios["overhead"].median if "overhead" in self.ratios else None

    @property
    def is_faster(self) -> bool:
        """Whether the pruned graph is measurably faster than the dense one: the speed-up's interval lies above 1."""
        return self.ratios["speedup"].is_above_1

    @property
    def cpu_only(self) -> str | None:
        """Why only a CPU ran graphs that are for something else; None where the target's runtime did."""
        found = self.environment.get("cpu_only")
        return None if found is None else str(found)

    @property
    def fails(self) -> bool:
        """Whether the pruned graph is not faster where it is meant to run; elsewhere nothing is judged."""
        return not self.is_faster and self.cpu_only is None

    @property
    def claimed(self) -> bool:
        """Whether a speed-up may be claimed, see `verdict`."""
        return self.is_faster and self._doubt is None

    @property
    def images_per_second(self) -> dict[str, float]:
        """By graph, from the median."""
        return {name: 1000 * self.batch / one.median for name, one in self.distributions.items()}

    @property
    def runtime(self) -> str:
        """What ran the graphs, such as `onnxruntime-cpu`."""
        return self.conditions.runtime

    @property
    def warning(self) -> str | None:
        """What makes its absolute times doubtful: other work on the machine."""
        return self.conditions.warning

    @property
    def conditions(self) -> Conditions:
        """What is read of the environment."""
        return conditions_of(self.environment)

    @property
    def _doubt(self) -> str | None:
        """Why a ratio above 1 is not claimed; None where it is."""
        rounds, again = self.dense.samples, self.speedup_by_repeat
        if self.cpu_only is not None:
            return "only a CPU ran it, which says nothing of its target"
        if rounds < FEWEST:
            return f"{rounds} rounds are too few for a 95 % interval, take more"
        if not all(value > 1 for value in again):
            return f"one repeat of {len(again)} had a ratio of {min(again):.2f}; take more runs"
        if self.dense.overlaps(self.pruned):
            return "the intervals of the two medians overlap; take more runs on a quieter machine"
        return None

    @property
    def verdict(self) -> str:
        """What may be said of the speed, in words.

        A speed-up is claimed only where the intervals of both medians lie apart, the paired ratio's interval lies above
        1, there are enough rounds for a 95 % interval, and every repeat was faster for itself. Where the pruned graph
        is not faster than itself in a wider precision, the narrower one costs accuracy and gives nothing: that is said.
        Where only a CPU ran what is for something else, nothing is judged.
        """
        low, high = self.speedup_interval
        if self.cpu_only is not None:
            seen = f"{self.speedup:.2f} times the dense graph's speed (95 % interval {low:.2f} to {high:.2f})"
            return f"not judged: {seen} on this CPU, which says nothing of its target; {LATER}"
        if self.is_faster and self._doubt:
            verdict = f"no speed-up is claimed: {self._doubt}"
        elif self.is_faster:
            verdict = f"{self.speedup:.2f} times as fast as dense (95 % interval {low:.2f} to {high:.2f})"
        elif high < 1:
            verdict = f"slower than dense: {self.speedup:.2f} times its speed"
        else:
            verdict = f"not measurably faster than dense (95 % interval of the ratio {low:.2f} to {high:.2f})"
        return verdict + "".join(self._better_wide())

    def _better_wide(self) -> list[str]:
        """Of each wider precision that is as fast: that it is the one to take."""
        ratios = {name: self.ratios.get(f"over_{name}") for name in self.distributions}
        return [
            f"; but no faster than the same graph in {name} ({over.median:.2f} times its speed, 95 % interval "
            f"{over.interval[0]:.2f} to {over.interval[1]:.2f}): take {name}, which is nearer to the model"
            for name, over in ratios.items()
            if over is not None and not over.is_above_1
        ]


def report(
    samples: Mapping[str, np.ndarray],
    batch: int,
    environment: Mapping[str, Any],
    repeats: Sequence[int] | None = None,
) -> Bench:
    """A benchmark from the samples of `dense`, `pruned`, if there `floor`, and the pruned graph in wider precisions.

    Args:
        samples: by name, [rounds] milliseconds; entry i of all of them belongs to one round.
        batch: images per inference.
        environment: kept as it is.
        repeats: rounds of each repeat, as `repeat` returns them.
    """
    dense, pruned = samples[Kind.DENSE], samples[Kind.PRUNED]
    ratios = {"speedup": paired_ratio(dense, pruned)}
    if Kind.FLOOR in samples:
        ratios["overhead"] = paired_ratio(pruned, samples[Kind.FLOOR])
        ratios["ceiling"] = paired_ratio(dense, samples[Kind.FLOOR])
    for name in samples:
        if name not in layout.TRACED:
            ratios[f"over_{name}"] = paired_ratio(samples[name], pruned)
    return Bench(
        batch=batch,
        distributions={str(name): summarize(values) for name, values in samples.items()},
        ratios=ratios,
        environment=dict(environment),
        speedup_by_repeat=_each_repeat(dense / pruned, repeats),
    )


def _each_repeat(ratios: np.ndarray, repeats: Sequence[int] | None) -> tuple[float, ...]:
    """Median of the ratios within each repeat."""
    ends = np.cumsum(repeats or [len(ratios)])[:-1]
    return tuple(float(np.median(part)) for part in np.split(ratios, ends))
