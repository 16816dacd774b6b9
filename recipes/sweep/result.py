"""What a sweep found: a row a point, the front, and the best point for every constraint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.inputs import is_file
from ...exporter.core.records import Record, optional

FORMAT = "vitrim-sweep/1"
JOURNAL, RESULT = "sweep.journal", "sweep.json"  # in the folder of a sweep
Constraint = Literal["agreement", "speedup"]


@dataclass(frozen=True)
class Speed(Record):
    """How fast a point's graph is, timed in turns with the dense graph and the floor of its plan.

    Attributes:
        speedup, interval: over the dense graph, round by round, with its 95 % interval.
        median, dense: milliseconds a batch.
        overhead: over the floor of the plan.
        rivals: points that were timed in the same rounds, this one among them; 0: it was timed alone with dense.
        warning: what disturbed the benchmark.
    """

    speedup: float
    interval: tuple[float, float]
    median: float
    dense: float
    overhead: float | None = optional()
    rivals: int = optional(0)
    warning: str | None = optional()

    @property
    def floor(self) -> float:
        """Speed-up of the floor, which no choice of these tokens could be faster than."""
        return self.speedup * (self.overhead or 1.0)


@dataclass(frozen=True)
class Row(Record):
    """One point of a sweep.

    Attributes:
        method, ratio, precision: of the point; `ratio` is the share of the dense GMACs that was asked for.
        tokens: after every block.
        gmacs: what the graph computes, choosing and merging included, in 1e9; None where no plan was found.
        floor_gmacs: the same without choosing and merging.
        look: answers on the first few evaluation images, of the model in float32.
        answers: on all of them; None where the point was stopped before.
        speed: None where it was stopped before, or its target does not run here.
        stopped: why it was not looked at further: what dominates it.
        refused: why there is no such point.
    """

    method: str
    ratio: float
    precision: str
    tokens: tuple[int, ...] = ()
    gmacs: float | None = optional()
    floor_gmacs: float | None = optional()
    look: Fidelity | None = optional()
    answers: Fidelity | None = optional()
    speed: Speed | None = optional()
    stopped: str | None = optional()
    refused: str | None = optional()

    @property
    def name(self) -> str:
        """As a person calls it."""
        return f"{self.method} at {self.ratio:g} in {self.precision}"

    @property
    def is_whole(self) -> bool:
        """Whether all of it was measured that can be here."""
        return self.stopped is None and self.refused is None and self.answers is not None


@dataclass(frozen=True)
class Chosen(Record):
    """The best point for a constraint.

    Attributes:
        constraint, bound: `agreement`: the fastest point that agrees at least so often; `speedup`: the point that
            agrees most of those at least so fast.
        point: its name; None where no point holds it.
        surely: whether the worse end of its 95 % interval holds it, too.
        recipe: file of its recipe, from the sweep's folder.
    """

    constraint: Constraint
    bound: float
    point: str | None
    surely: bool = False
    recipe: str | None = optional()


@dataclass(frozen=True)
class Sweep(Record):
    """A whole sweep.

    Attributes:
        format: of this file.
        model, target, batch: of all points.
        dense_gmacs: of the dense model, as papers count.
        images: that answers were measured on.
        on_calibration_images: whether decisions were made on the same.
        runtime, cpu, threads: what timed the graphs.
        points: by precision, method and ratio.
        chosen: for every constraint that was asked for.
        untimed: why nothing was timed; None where it was.
        resumed: points that an earlier run had finished.
        workers: that made plans and answers; None: as many as the cluster had room for.
        ray: address of the cluster of Ray; None where this machine did the work.
        seconds: that this run took.
    """

    DERIVED = ("on_front",)

    format: str
    model: str
    target: str
    batch: int
    dense_gmacs: float
    images: int
    on_calibration_images: bool
    cpu: str
    threads: int
    points: tuple[Row, ...]
    chosen: tuple[Chosen, ...] = ()
    untimed: str | None = optional()
    resumed: int = 0
    workers: int | None = 1
    ray: str | None = optional()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"is of the format {self.format[:40]!r}, but this vitrim knows {FORMAT}")

    @property
    def whole(self) -> tuple[Row, ...]:
        """The points of which everything was measured."""
        return tuple(row for row in self.points if row.is_whole)

    @property
    def front(self) -> tuple[Row, ...]:
        """The points that no other one is both as fast as and as faithful as; slowest first."""
        rows = sorted(self.whole, key=lambda row: (-quickness(row), -_agreement(row), _kl(row)))
        found: list[Row] = []
        for row in rows:
            if not found or _agreement(row) > _agreement(found[-1]):
                found.append(row)
        return tuple(reversed(found))

    @property
    def on_front(self) -> tuple[str, ...]:
        """Names of the points on the front."""
        return tuple(row.name for row in self.front)

    def point(self, name: str) -> Row:
        """A point by its name."""
        return next(row for row in self.points if row.name == name)

    def best(self, *, agreement: float | None = None, speedup: float | None = None) -> Row | None:
        """The best point for a constraint; None where none holds it.

        Args:
            agreement: the fastest point with at least this share of the dense model's answers; one whose 95 % interval
                begins there comes before one of which only the figure does.
            speedup: the point that agrees most of those at least so fast, in the same way; give one of the two.

        Raises:
            InputError: not exactly one of them is given.
        """
        if agreement is not None and speedup is None:
            chosen = choose(self.points, "agreement", agreement)
        elif speedup is not None and agreement is None:
            chosen = choose(self.points, "speedup", speedup)
        else:
            raise InputError("best: give agreement=, such as 0.98, or speedup=, such as 1.3")
        return None if chosen.point is None else self.point(chosen.point)

    def _repr_html_(self) -> str | None:
        """The Pareto picture and the best points, for a notebook; see `recipes.report`."""
        from ..report.write import sweep_in_frame

        return sweep_in_frame(self)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep which has a result."""
    return is_file(folder / JOURNAL) and is_file(folder / RESULT)


def read_sweep(folder: Path) -> Sweep:
    """The result of a sweep.

    Raises:
        InputError: it is damaged.
    """
    return Sweep.read(folder / RESULT, "sweep", "vitrim sweep")


def quickness(row: Row) -> float:
    """What a point is the better for: its speed-up, or where nothing is timed how few GMACs it takes."""
    return row.speed.speedup if row.speed is not None else -(row.gmacs or 0.0)


def _agreement(row: Row) -> float:
    return -1.0 if row.answers is None else row.answers.agreement


def _kl(row: Row) -> float:
    return float("inf") if row.answers is None else row.answers.kl


def choose(points: tuple[Row, ...], constraint: Constraint, bound: float) -> Chosen:
    """The best of some points for a constraint, see `Sweep.best`."""
    found: list[tuple[bool, Row]] = []
    for row in points:
        if not row.is_whole or row.answers is None:
            continue
        if constraint == "agreement":
            figure, end = row.answers.agreement, row.answers.agreement_interval[0]
        elif row.speed is not None:
            figure, end = row.speed.speedup, row.speed.interval[0]
        else:
            continue
        if figure >= bound:
            found.append((end >= bound, row))
    if not found:
        return Chosen(constraint, bound, None)
    surely = any(sure for sure, _ in found)
    rows = [row for sure, row in found if sure or not surely]
    if constraint == "agreement":
        best = max(rows, key=lambda row: (quickness(row), _agreement(row), -_kl(row)))
    else:
        best = max(rows, key=lambda row: (_agreement(row), -_kl(row), quickness(row)))
    return Chosen(constraint, bound, best.name, surely)
