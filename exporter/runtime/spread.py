"""How far a reference's logits spread: what an error is held against beside a tolerance. Torch-free.

::

    spread of the logits   below 0.1         0.1 to 10    above 10
    what an atol allows    atol * spread/0.1    atol      atol * spread/10

A tolerance is absolute for the logits of ordinary models. Of a model whose logits are tiny it would pass anything, and
of one whose logits are huge not even float32's rounding, so there it is a share of the spread. Whatever it is, no error
above half of the spread passes: a constant is never nearer than the whole spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ORDINARY = (0.1, 10.0)  # spreads at which an atol is an absolute error
LARGEST = 0.5  # of the spread, at any tolerance
NEARER = 0.9  # of the spread: in another precision, the least that sets a graph apart from the best constant


@dataclass(frozen=True)
class Spread:
    """Root mean squares of what logits deviate by, in their own unit.

    Attributes:
        classes: from the mean of their image; None for one class.
        images: from the mean of their class; None for one image.
        magnitude: the largest of them.
        rounding: what of the magnitude may be rounding alone.
    """

    classes: float | None
    images: float | None
    magnitude: float
    rounding: float

    @property
    def least(self) -> float:
        """The smaller of the two: no constant over the classes, or over the images, has a smaller largest error."""
        return min((value for value in (self.classes, self.images) if value is not None), default=0.0)

    @property
    def unit(self) -> float:
        """What an atol of 1 allows; it grows and shrinks with the logits outside `ORDINARY`."""
        found = self.least if self.classes is None else self.classes
        least, most = ORDINARY
        return found / least if found < least else max(found / most, 1.0)

    @property
    def unproven(self) -> str | None:
        """Why nothing can be proven with these logits as a reference; None where something can."""
        if self.classes is None and self.images is None:
            return "unproven: one image and one class are one number, which a constant gives too; give more images"
        for value, words in (
            (self.classes, "gives all classes the same logit, so a graph that gives a constant would pass"),
            (self.images, "gives every image the same logits, so a graph that reads no image would pass"),
        ):
            if value is not None and value <= self.rounding:
                return f"unproven: the reference {words}; take trained weights and images that differ"
        return None


def spread_of(logits: np.ndarray) -> Spread:
    """The spread of finite [n, classes] logits, n above 0."""
    count, classes = logits.shape
    magnitude = float(np.abs(logits).max())
    precision = float(np.finfo(np.float16 if logits.dtype == np.float16 else np.float32).eps)
    return Spread(
        classes=_deviation(logits, 1) if classes > 1 else None,
        images=_deviation(logits, 0) if count > 1 else None,
        magnitude=magnitude,
        rounding=4 * precision * magnitude,
    )


def _deviation(logits: np.ndarray, axis: int) -> float:
    wide = logits.astype(np.float64)
    return root_mean_square(wide - wide.mean(axis=axis, keepdims=True))


def root_mean_square(values: np.ndarray) -> float:
    """Of all entries, in float64."""
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))
