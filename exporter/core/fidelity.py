"""What pruning, or a precision, costs in answers: counted over batches of images, and as a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .answers import FEATURES, LOGITS, ROWS, TASKS, Task
from .errors import InputError
from .intervals import Z95, share_interval
from .records import Record, optional

if TYPE_CHECKING:
    from .intervals import Interval

_FEWEST, _POOR = 64, 0.05  # images, and a share that no model in use falls below


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
        spread = Z95 * math.sqrt(self._kl_squares / (self._images - 1) / self._images)
        return max(self._kl_mean - spread, 0.0), self._kl_mean + spread


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
    for start in range(0, len(dense), ROWS):
        part = slice(start, start + ROWS)
        tally.add(dense[part], pruned[part], None if labels is None else labels[part])
    return tally.result()
