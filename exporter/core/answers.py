"""How answers are compared: agreement with the dense model, divergence, ranked classes.

A model answers with logits, or without a classifier with features. A `Task` says how either is compared::

    logits    an image's answer: its class                    distance: Kullback-Leibler, in nats
    features  an image's answer: its nearest other image      distance: 1 - cosine
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make it
    Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
else:
    Compare = Any
TOKENS = "tokens"  # the output that holds the last hidden tokens, [n, tokens, width] float
_DIGITS = 12  # of a cosine: images that are there twice tie, whatever order their products are summed in
ROWS = 1024  # compared at once: in float64, four times over


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
        same_top(similarities(reference, start, start + ROWS), similarities(candidate, start, start + ROWS))
        for start in range(0, len(reference), ROWS)
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
