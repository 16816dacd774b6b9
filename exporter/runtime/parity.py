"""A parity ladder: what was held against what, how far off it was, and whether it passed. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.answers import TASKS, Task
from ..core.bounds import ATOL, TIE, require_within
from ..core.errors import InputError
from ..core.records import Record, optional
from .tensorrt.identity import EngineIdentity


@dataclass(frozen=True)
class StageAgreement(Record):
    """How one stage's decisions compare.

    Attributes:
        output: `kept_<block>` or `merged_<block>`.
        same_images: share of images with the same set of tokens.
        same_tokens: mean share of the tokens in common.
        differing: images that differ.
        first_here: images whose first difference is at this stage.
        largest_gap: of those, the largest relative score gap at the reference's cut; None where nothing differs.
    """

    output: str
    same_images: float
    same_tokens: float
    differing: int
    first_here: int
    largest_gap: float | None


@dataclass(frozen=True)
class Errors(Record):
    """Numeric error of logits over some images.

    Attributes:
        images: how many.
        max_abs: largest absolute error.
        mean_abs: mean absolute error.
        cosine_min: smallest cosine of an image's logits.
        cosine_mean: mean over the images.
    """

    images: int
    max_abs: float
    mean_abs: float
    cosine_min: float
    cosine_mean: float

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"is of {self.images} images, but an error is of one at least")


@dataclass(frozen=True)
class TokenErrors(Record):
    """Numeric error of last hidden tokens over some images.

    Attributes:
        images: how many.
        worst: root mean square of a token's error, of the worst one; of a moved token to the one that it is.
        cosine_mean: mean over all tokens.
        moved: share of the tokens that are another one of their image, see `tokens`.
    """

    images: int
    worst: float
    cosine_mean: float
    moved: float = 0.0

    def __post_init__(self) -> None:
        if self.images < 1 or not 0 <= self.moved <= 1:
            raise ValueError(f"is of {self.images} images, of whose tokens {self.moved:g} moved; shares are 0 to 1")


@dataclass(frozen=True)
class Limits(Record):
    """What a graph of another precision than float32 must keep.

    Attributes:
        cosine: least mean cosine of an image's logits.
        agreement: least share of images with the same top class, or of features the same nearest image.
    """

    cosine: float
    agreement: float

    def __post_init__(self) -> None:
        if not -1 <= self.cosine <= 1 or not 0 <= self.agreement <= 1:
            raise ValueError(f"has the cosine {self.cosine:g} and the agreement {self.agreement:g}; both go up to 1")


@dataclass(frozen=True)
class Rung(Record):
    """One step of the ladder: a candidate held against the reference.

    Attributes:
        name: what is compared.
        images: how many images.
        stages: decisions, by stage.
        equal: numeric error where all decisions agree; None where they never do.
        replayed: numeric error of the others, the candidate's decisions replayed on the reference.
        end: error over all images as they are.
        unproven: images that decide otherwise and were not replayed: their numbers are held against nothing.
        top1: share of images with the same answer, see `answers.Task`; where two tie, the candidate has none.
        ranked: largest error of a candidate's `probabilities` where its numbers can be held; None where it gives none.
        passed: within the tolerance, and decisions differ only at near-ties.
        first_offender: output that fails first, such as `kept_6` or `logits`.
        smallest_atol: the tolerance that the numbers need, decisions apart; None where none would do.
        output: what was held, see `answers.Task`.
        tokens: error of the last hidden tokens, where the graph gives them, on the images whose numbers are held.
        unit: what an atol of 1 allows: 1, but for logits that spread by little or much, see `spread`.
        smallest_tie: what a near-tie would have to be for all differing decisions to pass; None where none would do.
        reason: why it failed, in words.
        strict: held to an absolute error; else, in another precision, to the cosine and the answers.
    """

    name: str
    images: int
    stages: tuple[StageAgreement, ...] = ()
    equal: Errors | None = None
    replayed: Errors | None = None
    end: Errors | None = None
    unproven: int = 0
    top1: float = 0.0
    ranked: float | None = None
    passed: bool = True
    first_offender: str | None = None
    smallest_atol: float | None = None
    smallest_tie: float | None = None
    reason: str = ""
    strict: bool = True
    unit: float = optional(1.0)
    output: str = optional("logits")
    tokens: TokenErrors | None = optional()

    def __post_init__(self) -> None:
        if self.output not in TASKS:
            raise ValueError(f"holds {self.output[:40]!r}, but answers are {' or '.join(TASKS)}")

    @property
    def task(self) -> Task:
        """How answers were compared."""
        return TASKS[self.output]

    @property
    def same_images(self) -> float | None:
        """Share of images with the same tokens, at the stage where it is least; None without stages."""
        return min((stage.same_images for stage in self.stages), default=None)

    @property
    def in_proportion(self) -> bool:
        """Whether a tolerance is a share of the logits' spread, and no absolute error, to the digits that are shown."""
        return f"{self.unit:.2g}" != "1"

    @property
    def largest_error(self) -> float:
        """Of a logit where numbers are held; 0 where they are nowhere."""
        return max((part.max_abs for part in (self.equal, self.replayed) if part), default=0.0)

    @property
    def has_held_numbers(self) -> bool:
        """Whether some image's numbers were held under equal decisions; else all are judged as they are."""
        return self.equal is not None or self.replayed is not None

    @property
    def mean_cosine(self) -> float | None:
        """Mean cosine of the images whose decisions are held, or of all where none are; None without numbers."""
        parts = [part for part in (self.equal, self.replayed) if part] or [part for part in (self.end,) if part]
        if not parts:
            return None
        return sum(part.cosine_mean * part.images for part in parts) / sum(part.images for part in parts)

    def describe_error(self) -> str:
        """How far off the numbers are, for a table: the tolerance that they need; of another precision, the cosine."""
        if self.strict:
            if self.smallest_atol is None:
                return "-"
            return f"{self.smallest_atol:.2g}{f' x {self.unit:.2g}' if self.in_proportion else ''}"
        found = self.mean_cosine
        return "-" if found is None else f"cosine {found:.5f}{'' if self.has_held_numbers else ', no decisions alike'}"


@dataclass(frozen=True)
class Parity(Record):
    """All rungs in order, and what they were held to.

    Attributes:
        atol: largest absolute error of a logit, for the strict rungs.
        tie: relative score gap below which decisions may differ, for the strict rungs.
        rungs: in order.
        close: limits of the rungs that are not strict, where there are such.
        cpu_only: why only onnxruntime's CPU provider ran a graph that is meant for something else.
        graph_not_checked, engine_not_checked: why not.
        engine: identity of the engine that was built and held.
    """

    DERIVED = ("passed", "first_offender", "smallest_atol", "smallest_tie")

    atol: float
    tie: float
    rungs: tuple[Rung, ...]
    close: Limits | None = optional()
    cpu_only: str | None = optional()
    graph_not_checked: str | None = optional()
    engine_not_checked: str | None = optional()
    engine: EngineIdentity | None = optional()

    def __post_init__(self) -> None:
        try:
            require_within("atol", self.atol, *ATOL)
            require_within("tie", self.tie, *TIE)
        except InputError as error:
            raise ValueError(str(error)) from error

    @property
    def passed(self) -> bool:
        """Whether every rung did."""
        return self._failed is None

    @property
    def first_offender(self) -> str | None:
        """The rung and the output that fail first."""
        return f"{self._failed.name}: {self._failed.first_offender}" if self._failed else None

    @property
    def smallest_atol(self) -> float | None:
        """What the strict rungs need; None where one fails at any, or none is strict."""
        return _largest(rung.smallest_atol for rung in self.rungs if rung.strict)

    @property
    def smallest_tie(self) -> float | None:
        """What the strict rungs need; None where one fails at any, or none is strict."""
        return _largest(rung.smallest_tie for rung in self.rungs if rung.strict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not checked, or not where it is meant to run, and why."""
        missing = {"graph": self.graph_not_checked, "engine": self.engine_not_checked}
        skipped = [f"the {what} was not checked: {reason}" for what, reason in missing.items() if reason]
        return (*([self.cpu_only] if self.cpu_only else []), *skipped)

    @property
    def failure(self) -> str:
        """One line: which rung and layer, by how much, and which tolerance would pass; empty where all passed."""
        rung = self._failed
        if rung is None:
            return ""
        hints = []
        if rung.strict and rung.smallest_atol is not None and rung.smallest_atol > self.atol:
            hints.append(f"the smallest atol that would pass the numbers is {_at_least(rung.smallest_atol)}")
        if rung.strict and rung.smallest_tie is not None and rung.smallest_tie > self.tie:
            hints.append(f"the smallest tie that would pass the decisions is {_at_least(rung.smallest_tie)}")
        return "; ".join([f"parity failed at '{rung.name}', first at {rung.first_offender}: {rung.reason}", *hints])

    @property
    def _failed(self) -> Rung | None:
        return next((rung for rung in self.rungs if not rung.passed), None)


def _largest(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if None in found else max((value for value in found if value is not None), default=None)


def _at_least(value: float) -> str:
    """Three digits, rounded up: a tolerance that is copied from a message must do."""
    text = f"{value:.3g}"
    if float(text) < value:
        step = 10.0 ** (math.floor(math.log10(value)) - 2)
        text = f"{float(text) + step:.3g}"
    return text
