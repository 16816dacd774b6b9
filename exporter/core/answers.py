"""What is done to answers: agreement with the dense model, divergence, accuracy where labels are, ranked classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def fidelity(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Paired comparison on the same images.

    Args:
        dense: [n, classes] logits of the dense model.
        pruned: [n, classes] logits of the pruned one.
        labels: [n] class indices, or None.

    Returns:
        `agreement` of the top class, mean `kl` divergence from dense, and with labels both accuracies and how many
        images turned wrong (`lost`) or right (`won`).
    """
    ours, theirs = dense.argmax(1), pruned.argmax(1)
    p, q = log_softmax(dense), log_softmax(pruned)
    result: dict[str, Any] = {
        "images": len(dense),
        "agreement": float((ours == theirs).mean()),
        "kl": float((np.exp(p) * (p - q)).sum(axis=1).mean()),
    }
    if labels is not None:
        right, still = ours == labels, theirs == labels
        result |= {
            "accuracy_dense": float(right.mean()),
            "accuracy_pruned": float(still.mean()),
            "lost": int((right & ~still).sum()),
            "won": int((~right & still).sum()),
        }
    return result


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
