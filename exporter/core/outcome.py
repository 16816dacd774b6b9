"""What is asked of a pruned model's answers, what calibration images promise of it, and what other images gave.

A figure holds a bound with its margin where the end of its 95 % interval that is worse for the model holds it: that is
what a plan must do on the images that it is decided on. On images kept apart, the figure itself is held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .errors import InputError
from .fidelity import Fidelity
from .intervals import change_interval
from .records import Record, optional

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Words = Callable[[float], str]
    Read = Callable[[Fidelity], "Figure"]
else:
    Words = Read = Any
OUTCOME = "outcome"  # its key in the statistics of a budget
FEWEST_OF_A_MEAN = 30  # images, below which the interval of a mean of divergences says nothing
MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class Figure(Record):
    """A measured figure.

    Attributes:
        value: what was measured.
        interval: of 95 %; None where there are too few images for one.
    """

    value: float
    interval: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; where there is none, the value itself."""
        return self.interval or (self.value, self.value)


@dataclass(frozen=True)
class Measure:
    """One way to ask for an outcome.

    Attributes:
        name: the key of a recipe.
        title: for a person.
        at_least: whether more is better, so that at least so much is asked for; else at most.
        read: its figure of a comparison with the dense model.
        words: a value of it for a person.
        labelled: whether images must have labels.
    """

    name: str
    title: str
    at_least: bool
    read: Read
    words: Words
    labelled: bool = False

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value >= bound if self.at_least else value <= bound

    def worse_end(self, figure: Figure) -> float | None:
        """The end of a figure's interval that is worse for the model; None without one."""
        return None if figure.interval is None else figure.interval[0 if self.at_least else 1]

    def holds_surely(self, figure: Figure, bound: float) -> bool:
        """Whether a figure holds a bound with its margin, see the top."""
        end = self.worse_end(figure)
        return end is not None and self.holds(end, bound)

    def told(self, figure: Figure) -> str:
        """A figure with its interval, for a person."""
        if figure.interval is None:
            return self.words(figure.value)
        low, high = map(self.words, figure.interval)
        return f"{self.words(figure.value)} (95 % interval {low} to {high})"

    def asked(self, bound: float) -> str:
        """What a bound asks for, such as `agreement of at least 97.0 %`."""
        return f"{self.title} of at {'least' if self.at_least else 'most'} {self.words(bound)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _nats(value: float) -> str:
    return f"{value:.4f}"


def _agreement(found: Fidelity) -> Figure:
    return Figure(found.agreement, found.agreement_interval)


def _top1_drop(found: Fidelity) -> Figure:
    lost, won = found.lost, found.won
    if lost is None or won is None:
        raise InputError("top1_drop is of images with labels, of a model with a classifier; give such images")
    low, high = change_interval(lost, won, found.images)
    return Figure((lost - won) / found.images, (-high, -low))


def _kl(found: Fidelity) -> Figure:
    return Figure(found.kl, found.kl_interval if found.images >= FEWEST_OF_A_MEAN else None)


AGREEMENT = Measure("agreement", "agreement with the dense model", True, _agreement, _percent)
TOP1_DROP = Measure("top1_drop", "loss of top-1", False, _top1_drop, _points, labelled=True)
KL = Measure("kl", "divergence from the dense model", False, _kl, _nats)
MEASURES: dict[str, Measure] = {one.name: one for one in (AGREEMENT, TOP1_DROP, KL)}


def best_of(measure: Measure, images: int) -> Figure:
    """The figure of a model that answers some images just as the dense one does."""
    return measure.read(Fidelity(images, 1.0, 0.0, 1.0, 1.0, 0, 0, (0.0, 0.0)))


def fewest_images(measure: Measure, bound: float) -> int | None:
    """Images on which a bound can be held with its margin at all; None where no number of them does."""
    if not measure.holds_surely(best_of(measure, MOST_IMAGES), bound):
        return None
    low, high = 0, MOST_IMAGES  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure.holds_surely(best_of(measure, middle), bound) else (middle, high)
    return high


@dataclass(frozen=True)
class Tried(Record):
    """A plan that was tried on the calibration images.

    Attributes:
        gmacs: its cost, scoring included.
        figure: what it gave.
        holds: whether it holds what was asked for with its margin.
    """

    gmacs: float
    figure: Figure
    holds: bool


@dataclass(frozen=True)
class Judged(Record):
    """What images said that the plan was not decided on.

    Attributes:
        images: how many.
        figure: what they gave.
        apart: False where they are the calibration images after all.
        by: what answered, `PyTorch` or `the graph`.
    """

    images: int
    figure: Figure
    apart: bool
    by: str


@dataclass(frozen=True)
class Wish(Record):
    """A speed-up wished for beside an outcome.

    Attributes:
        speedup: what was wished for.
        predicted: of the plan.
        by: what predicted it: a `table` of measured latencies, or else the `formula` for a CPU.
    """

    speedup: float
    predicted: float
    by: Literal["formula", "table"] = optional("formula")

    def told(self, measured: Figure | None = None) -> str:
        """Whether it is met, for a person, in one line.

        Args:
            measured: the speed-up on this machine; None: the prediction has to do.
        """
        known, best = f"predicted {self.predicted:.2f} by the {self.by}", self.predicted
        if measured is not None:
            low, high = measured.ends
            known = f"measured {measured.value:.2f} (95 % interval {low:.2f} to {high:.2f}), {known}"
            best = measured.value
        verdict = "met" if best >= self.speedup else "not met, as a faster plan does not hold the outcome"
        return f"Wished: speed-up of {self.speedup:.2f}; {known}: {verdict}"


@dataclass(frozen=True)
class Outcome(Record):
    """An outcome that was asked for, as `outcome` in the statistics of a budget.

    Attributes:
        measure: by which it was asked for, see `MEASURES`.
        asked: the bound.
        images: calibration images that the plan was decided on.
        promised: what they gave.
        tried: every plan, the cheapest first.
        judged: None where there were no further images.
        wish: None where none was made.
    """

    measure: str
    asked: float
    images: int
    promised: Figure
    tried: tuple[Tried, ...]
    judged: Judged | None = None
    wish: Wish | None = None

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"is of {self.measure[:40]!r}, but outcomes are of {', '.join(MEASURES)}")

    def judged_by(self, found: Fidelity, apart: bool, by: str) -> Outcome:
        """The same, with what other images gave."""
        return replace(self, judged=Judged(found.images, MEASURES[self.measure].read(found), apart, by))

    @property
    def kept(self) -> bool | None:
        """Whether what other images gave holds the bound; None where there were none."""
        return None if self.judged is None else MEASURES[self.measure].holds(self.judged.figure.value, self.asked)

    def lines(self, speedup: Figure | None = None) -> list[str]:
        """For a person: asked and promised, got, and the wish.

        Args:
            speedup: as measured on this machine; None: it was not.
        """
        measure, judged = MEASURES[self.measure], self.judged
        said = f"{measure.told(self.promised)} on {self.images} calibration images, plans tried: {len(self.tried)}"
        lines = [f"Asked: {measure.asked(self.asked)}. Promised: {said}"]
        if judged is None:
            lines.append("Got: not judged, as there are no other images")
        else:
            where = "images kept apart" if judged.apart else "images, the calibration images themselves"
            got = f"{measure.told(judged.figure)} on {judged.images} {where}, by {judged.by}"
            lines.append(f"Got: {got}: {self.verdict}")
        return lines if self.wish is None else [*lines, self.wish.told(speedup)]

    @property
    def verdict(self) -> str:
        """Whether other images kept the bound, and of a miss whether it may be one of chance."""
        if self.judged is None or self.kept:
            return "kept" if self.kept else "not judged"
        low, high = self.judged.figure.ends
        return "missed" + (", which so few images cannot tell from kept" if low <= self.asked <= high else "")


def outcome_of(statistics: Mapping[str, Any]) -> Outcome | None:
    """What was asked of a plan's answers, from its budget's statistics; None where it is not for an outcome.

    Raises:
        InputError: what stands there is damaged.
    """
    data = statistics.get(OUTCOME)
    return None if data is None else Outcome.from_json(data, f"budget.json: statistics.{OUTCOME}")
