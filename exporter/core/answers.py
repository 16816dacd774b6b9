"""What is done to answers: agreement with the dense model, divergence, accuracy where labels are, ranked classes.

A model answers with logits, or without a classifier with features. A `Task` says how either is compared::

    logits    an image's answer: its class                    distance: Kullback-Leibler, in nats
    features  an image's answer: its nearest other image      distance: 1 - cosine
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .records import Record, optional

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Interval = tuple[float, float]
    Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
else:
    Compare = Any
TOKENS = "tokens"  # the output that holds the last hidden tokens, [n, tokens, width] float
_Z95 = 1.959963984540054  # standard deviations on each side of a normal interval of 95 %
_FEWEST, _POOR = 64, 0.05  # images, and a share that no model in use falls below
_DIGITS = 12  # of a cosine: images that are there twice tie, whatever order their products are summed in
_ROWS = 1024  # compared at once: in float64, four times over


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence [n], in nats, of a pruned model from the dense one; logits [n, classes]."""
    p, q = log_softmax(dense), log_softmax(pruned)
    values: np.ndarray = (np.exp(p) * (p - q)).sum(axis=1)
    return values


def same_top(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Whether the candidate's top class is the reference's; where classes tie at the top, it must be one of those.

    A candidate that cannot decide between them and another class gives no answer: a constant never agrees.

    Args:
        reference, candidate: [n, classes] logits.

    Returns:
        [n] bool.
    """
    ours = reference == reference.max(axis=1, keepdims=True)
    theirs = candidate == candidate.max(axis=1, keepdims=True)
    agree: np.ndarray = ~(theirs & ~ours).any(axis=1)
    return agree


def cosine(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Cosine of the rows of two [n, width] arrays: 0 where the candidate's is zero, NaN where the reference's is."""
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    ours, theirs = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    found = (a * b).sum(axis=1) / np.maximum(ours * theirs, 1e-300)
    return np.where(ours > 0, found, np.nan)


def similarities(features: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Cosine of every image's features to every other's, float64.

    Args:
        features: [n, width].
        start, stop: the rows wanted; all by default.

    Returns:
        [rows, n]; an image is less alike to itself than any two images are.
    """
    wide = features.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    found = np.round(wide[start:stop] @ wide.T, _DIGITS)
    rows = np.arange(len(found))
    found[rows, rows + start] = -2.0
    return found


def same_neighbour(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Whether an image's nearest other image by cosine is the reference's; ties as in `same_top`.

    Args:
        reference, candidate: [n, width] features of the same images, all of them: neighbours are looked for in there.

    Returns:
        [n] bool.
    """
    parts = [
        same_top(similarities(reference, start, start + _ROWS), similarities(candidate, start, start + _ROWS))
        for start in range(0, len(reference), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def feature_distance(dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """1 - cosine [n] of [n, width] features; where the dense model's are zero there is no direction to keep: 0."""
    values: np.ndarray = 1.0 - np.nan_to_num(cosine(dense, pruned), nan=1.0)
    return np.maximum(values, 0.0)


@dataclass(frozen=True)
class Task:
    """What a model answers with, and how two models' answers are compared.

    Attributes:
        output: its name among a graph's outputs, [n, classes or width] float.
        same: (reference, candidate) -> [n] bool, whether images have the same answer.
        distance: (dense, pruned) -> [n], how far apart images' answers are.
        apart: what `distance` is, for a person.
        answer: what an image's answer is called, for a person.
        short: what a column of the share of same answers is headed.
        by_image: whether an image's answer is its own; else it takes all images together.
    """

    output: str
    same: Compare
    distance: Compare
    apart: str
    answer: str
    short: str
    by_image: bool

    def expected(self, reference: np.ndarray, candidate: np.ndarray) -> float:
        """`expected_agreement` of whatever an image's answer is the largest of: its logits, or its similarities."""
        if self.by_image:
            return expected_agreement(reference, candidate)
        return expected_agreement(similarities(reference), similarities(candidate))


LOGITS = Task("logits", same_top, divergence, "divergence in nats", "top class", "top-1", True)
FEATURES = Task("features", same_neighbour, feature_distance, "1 - cosine", "nearest image", "neighbour", False)
TASKS: dict[str, Task] = {task.output: task for task in (LOGITS, FEATURES)}  # by output


def task_of(outputs: Collection[str]) -> Task:
    """The task of a graph, by the names of its outputs; where none is an answer, that of a classifier."""
    return next((task for name, task in TASKS.items() if name in outputs), LOGITS)


@dataclass(frozen=True)
class PrecisionChange(Record):
    """What another precision changed of the pruned graph, against itself in float32.

    Attributes:
        agreement: share of images with the same top class; of features, the same nearest other image.
        kl: mean divergence from float32, in nats; of features, mean of 1 - cosine.
        tokens_changed: by output, mean share of the tokens that are others.
        accuracy_float32: accuracy of the float32 graph, where there are labels.
    """

    agreement: float
    kl: float
    tokens_changed: dict[str, float]
    accuracy_float32: float | None = optional()

    def __post_init__(self) -> None:
        _require_shares(self.agreement, self.accuracy_float32, *self.tokens_changed.values())


def _require_shares(*shares: float | None) -> None:
    """Refuse, with a ValueError, what is no share."""
    wrong = [share for share in shares if share is not None and not 0 <= share <= 1]
    if wrong:
        raise ValueError(f"holds the share {wrong[0]:g}; shares lie from 0 to 1")


@dataclass(frozen=True)
class Fidelity(Record):
    """What pruning costs in answers, on the same images. Intervals are of 95 %; shares lie from 0 to 1.

    Attributes:
        images: how many.
        agreement: share of images with the dense model's top class; of features, its nearest other image.
        kl: mean divergence from the dense model, in nats; of features, mean of 1 - cosine.
        accuracy_dense, accuracy_pruned: shares that are right; None without labels.
        lost, won: images that turned wrong, and right; None without labels.
        kl_interval: of the mean; None for one image, and in files of vitrim 0.1.0.
        precision: what a precision other than float32 changed.
        on_calibration_images: whether the plan was decided on these very images.
        output: what answers are, see `Task`.
        tokens: mean cosine of the last hidden tokens with the dense model's, where the graphs give them: of every patch
            of the grid, or of the tokens that are left.
    """

    DERIVED = ("cosine", "agreement_interval", "accuracy_dense_interval", "accuracy_pruned_interval")

    images: int
    agreement: float
    kl: float
    accuracy_dense: float | None = optional()
    accuracy_pruned: float | None = optional()
    lost: int | None = optional()
    won: int | None = optional()
    kl_interval: tuple[float, float] | None = optional()
    precision: PrecisionChange | None = optional()
    on_calibration_images: bool = False
    output: str = optional("logits")
    tokens: float | None = optional()

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"is of {self.images} images, but answers are of one at least")
        _require_shares(self.agreement, self.accuracy_dense, self.accuracy_pruned)
        if self.output not in TASKS:
            raise ValueError(f"is of {self.output[:40]!r}, but answers are {' or '.join(TASKS)}")

    @property
    def task(self) -> Task:
        """How answers were compared."""
        return TASKS[self.output]

    @property
    def cosine(self) -> float | None:
        """Mean cosine with the dense model's features; None of logits."""
        return 1 - self.kl if self.output == FEATURES.output else None

    @property
    def agreement_interval(self) -> Interval:
        """Wilson's, as all of shares."""
        return share_interval(self.agreement, self.images)

    @property
    def accuracy_dense_interval(self) -> Interval | None:
        """None without labels."""
        return None if self.accuracy_dense is None else share_interval(self.accuracy_dense, self.images)

    @property
    def accuracy_pruned_interval(self) -> Interval | None:
        """None without labels."""
        return None if self.accuracy_pruned is None else share_interval(self.accuracy_pruned, self.images)


class FidelityTally:
    """A paired comparison, counted a batch at a time.

    Memory does not grow with the images, but where an answer takes all of them together: then their features are kept.

    Args:
        task: what the answers are.
    """

    def __init__(self, task: Task = LOGITS) -> None:
        self._task = task
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._images = self._agreeing = self._labelled = 0
        self._right_dense = self._right_pruned = self._lost = self._won = 0
        self._kl_mean = self._kl_squares = 0.0  # the mean, and the sum of squared differences from it

    def add(self, dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Count a batch.

        Args:
            dense: [n, classes] logits of the dense model, or [n, width] features.
            pruned: the same of the pruned one.
            labels: [n] class indices; of every batch, or of none. Features have no classes, so they are not read.

        Raises:
            InputError: the shapes differ, or only some batches have labels.
        """
        count, labels = len(dense), labels if self._task.by_image else None
        if dense.shape != pruned.shape or (labels is not None and len(labels) != count):
            others = "" if labels is None else f" and {len(labels)} labels"
            raise InputError(
                f"{self._task.output} {list(dense.shape)} cannot be held against {list(pruned.shape)}{others}"
            )
        if count == 0:
            return
        if self._images and bool(self._labelled) is not (labels is not None):
            raise InputError("some images have labels and others have none; give labels of all or of none")
        if self._task.by_image:
            self._agreeing += int(self._task.same(dense, pruned).sum())
        else:
            self._kept.append((dense, pruned))
        if labels is not None:
            ours, theirs = dense.argmax(1), pruned.argmax(1)
            right, still = ours == labels, theirs == labels
            self._labelled += count
            self._right_dense += int(right.sum())
            self._right_pruned += int(still.sum())
            self._lost += int((right & ~still).sum())
            self._won += int((~right & still).sum())
        self._add_kl(self._task.distance(dense, pruned))
        self._images += count

    def _add_kl(self, values: np.ndarray) -> None:
        """Two means and sums of squares as one (Chan's formula), which loses no digits to a large sum."""
        before, count = self._images, len(values)
        mean = float(values.mean())
        difference = mean - self._kl_mean
        self._kl_squares += float(((values - mean) ** 2).sum()) + difference**2 * before * count / (before + count)
        self._kl_mean += difference * count / (before + count)

    def result(self) -> Fidelity:
        """What was counted so far.

        Raises:
            InputError: nothing was.
        """
        images = self._images
        if not images:
            raise InputError("there are no images to compare")
        agreeing = self._agreeing
        if self._kept:
            dense, pruned = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
            agreeing = int(self._task.same(dense, pruned).sum())
        interval, output = self._kl_interval(), self._task.output
        found = Fidelity(images, agreeing / images, self._kl_mean, kl_interval=interval, output=output)
        if not self._labelled:
            return found
        return replace(
            found,
            accuracy_dense=self._right_dense / images,
            accuracy_pruned=self._right_pruned / images,
            lost=self._lost,
            won=self._won,
        )

    def _kl_interval(self) -> Interval | None:
        """Normal interval of the mean; it does not go below 0, as no divergence does."""
        if self._images < 2:
            return None
        spread = _Z95 * math.sqrt(self._kl_squares / (self._images - 1) / self._images)
        return max(self._kl_mean - spread, 0.0), self._kl_mean + spread


def share_interval(share: float, count: int) -> Interval:
    """Wilson's 95 % interval of a share that was counted on `count` images; it holds at 0 and 1, and for few."""
    square = _Z95**2 / count
    middle = share + square / 2
    spread = _Z95 * math.sqrt(share * (1 - share) / count + square / count / 4)
    return max((middle - spread) / (1 + square), 0.0), min((middle + spread) / (1 + square), 1.0)


def mean_interval(values: Sequence[float]) -> tuple[float, Interval | None]:
    """Mean of at least one value, and its normal 95 % interval, None for one.

    Sums are exact before they are rounded once, so the order of the values does not matter to the last bit.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    spread = _Z95 * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return mean, (mean - spread, mean + spread)


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p: how likely images that turned are divided this unevenly if pruning costs nothing.

    Args:
        lost: images that only the dense model has right.
        won: images that only the pruned one has right.
    """
    turned, ways, tail = lost + won, 1, 0
    for wins in range(min(lost, won) + 1):
        tail += ways
        ways = ways * (turned - wins) // (wins + 1)
    return min(1.0, 2 * tail / 2**turned)


def change_interval(lost: int, won: int, count: int) -> Interval:
    """95 % interval of pruned less dense accuracy on the same images: Bonett and Price's, with an image more each way.

    So it says something of few images too: where none turned, the normal interval would be a point.
    """
    more, images = (lost + 1) / (count + 2), count + 2
    change = (won - lost) / images
    spread = _Z95 * math.sqrt(max(more + (won + 1) / images - change**2, 0.0) / images)
    return max(change - spread, -1.0), min(change + spread, 1.0)


def doubt_labels(found: Fidelity, classes: int) -> str | None:
    """Why labels seem not to be the model's: the dense model does not beat chance on them. None where it does.

    Args:
        found: answers on labelled images; few say nothing.
        classes: of the model.
    """
    share, interval = found.accuracy_dense, found.accuracy_dense_interval
    if share is None or interval is None or found.images < _FEWEST or classes < 2:
        return None
    if share >= _POOR and interval[0] > 1 / classes:
        return None
    return (
        f"dense top-1 is {100 * share:.1f} % on {found.images} images: the labels do not fit the model, or it was not "
        "trained for them; see images.classes"
    )


def fidelity(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None, task: Task = LOGITS) -> Fidelity:
    """Paired comparison of answers that are all there; `FidelityTally` takes them as they come.

    Args:
        dense: [n, classes] logits of the dense model.
        pruned: [n, classes] logits of the pruned one.
        labels: [n] class indices, or None.
        task: what the answers are.

    Raises:
        InputError: the shapes differ, or there are no images.
    """
    tally = FidelityTally(task)
    for start in range(0, len(dense), _ROWS):
        part = slice(start, start + _ROWS)
        tally.add(dense[part], pruned[part], None if labels is None else labels[part])
    return tally.result()


def expected_agreement(reference: np.ndarray, logits: np.ndarray) -> float:
    """Share of images whose top class stays, expected of images like these: steadier than the share that is counted.

    An image turns when the change of the gap between its two best classes exceeds the gap. Few do, so a count says
    little; here every image's change is tried on every image's gap, as if the one did not depend on the other.

    Args:
        reference: [n, classes] logits.
        logits: [n, classes] of another graph.
    """
    rows = np.arange(len(reference))
    second, first = np.argsort(reference, axis=1)[:, -2:].T
    gaps, others = (values[rows, first].astype(np.float64) - values[rows, second] for values in (reference, logits))
    return float((gaps[:, None] + (others - gaps)[None, :] >= 0).mean())


def ranking_error(logits: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> float:
    """Largest error of top-k probabilities against the softmax of logits, by rank and by class.

    Classes that nearly tie may swap, at the cut too, at no more than the difference of their probabilities.

    Args:
        logits: [n, classes], of the reference.
        probabilities: [n, k], best first.
        classes: [n, k] integers, one a probability.

    Returns:
        the error; infinity where a class does not exist or comes twice, or a probability is no number.
    """
    known = ((classes >= 0) & (classes < logits.shape[1])).all() and (
        np.diff(np.sort(classes, axis=1), axis=1) > 0
    ).all()
    if not known or not np.isfinite(probabilities).all():
        return math.inf
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    best = -np.sort(-shares, axis=1)[:, : classes.shape[1]]
    picked = np.take_along_axis(shares, classes.astype(np.int64), axis=1)
    return float(max(np.abs(probabilities - best).max(), np.abs(probabilities - picked).max()))
