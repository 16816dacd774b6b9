"""The cheapest plan whose answers hold a bound on the calibration images, found by bisection over its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity, FidelityTally
from ...exporter.core.outcome import Measure
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.shape import task_of_model
from ...exporter.pruning.vit import PrunedViT
from ..images.reading import batches
from ..images.sources import ImageSource

MEMORY = 1 << 30  # bytes of images that are kept decoded
FINE = 0.01  # of the dearest plan's cost, within which the bisection ends


@dataclass(frozen=True)
class Point:
    """A plan that was tried.

    Attributes:
        budget: the plan.
        macs: that it was asked to stay within.
        answers: held against the dense model's.
    """

    budget: Budget
    macs: float
    answers: Fidelity


class DenseAnswers:
    """A dense model's answers on some images, computed once, which those of plans are held against.

    Args:
        dense: the model as it came.
        model: the one whose tokens go: what slimming left of it, or the same one.
        source: the images, with labels or without.
        batch: images per forward pass.
        progress: called with (images done, images) in every pass.
        memory: bytes of images that are kept decoded; more are read again in every pass.
    """

    @torch.inference_mode()
    def __init__(
        self,
        dense: Any,
        model: Any,
        source: ImageSource,
        batch: int = 32,
        progress: Callable[[int, int], None] = lambda done, total: None,
        memory: int = MEMORY,
    ) -> None:
        if not len(source):
            raise InputError("there are no images to compare")
        self._model, self._source, self._batch, self._progress = model, source, batch, progress
        fits = len(source) * source.read(0).nbytes <= memory
        self._kept = list(batches(source, batch)) if fits else None
        self._dense = [dense(torch.from_numpy(pixels)).numpy() for pixels in self._pieces()]

    def _pieces(self) -> Iterator[np.ndarray]:
        return batches(self._source, self._batch) if self._kept is None else iter(self._kept)

    @torch.inference_mode()
    def held_against(self, budget: Budget) -> Fidelity:
        """What a plan changes of the answers."""
        pruned, tally, done = PrunedViT(self._model, budget), FidelityTally(task_of_model(self._model)), 0
        labels = self._source.labels
        for pixels, dense in zip(self._pieces(), self._dense, strict=True):
            own = None if labels is None else labels[done : done + len(pixels)]
            tally.add(dense, pruned(torch.from_numpy(pixels)).numpy(), own)
            done += len(pixels)
            self._progress(done, len(self._source))
        return tally.result()


def cheapest(
    make: Callable[[float], Budget],
    answers: Callable[[Budget], Fidelity],
    measure: Measure,
    bound: float,
    reach: tuple[float, float],
) -> tuple[Point | None, list[Point]]:
    """The cheapest plan that holds a bound with its margin, see `vitrim.exporter.core.outcome`.

    What a plan changes grows as it gets cheaper, but for chance. So the dearest plan is tried first, then halves of
    what is left, and the cheapest one where nothing has failed.

    Args:
        make: the plan of a cost.
        answers: what a plan changes of the dense model's.
        measure: by which it is judged.
        bound: what it must hold.
        reach: the least and the most multiply-accumulates that plans cost.

    Returns:
        the plan, None where even the dearest one does not hold; and all that were tried, the cheapest first.
    """
    tried: dict[tuple[int, ...], Point] = {}

    def at(macs: float) -> Point:
        budget = make(macs)
        if budget.tokens not in tried:
            tried[budget.tokens] = Point(budget, macs, answers(budget))
        return tried[budget.tokens]

    def holds(point: Point) -> bool:
        return measure.holds_surely(measure.read(point.answers), bound)

    def ordered() -> list[Point]:
        return sorted(tried.values(), key=lambda point: point.macs)

    (low, high), best = reach, at(reach[1])
    if not holds(best):
        return None, ordered()
    while high - low > FINE * reach[1]:
        middle = at((low + high) / 2)
        if holds(middle):
            best, high = middle, (low + high) / 2
        else:
            low = (low + high) / 2
    if low == reach[0] and holds(at(low)):
        best = at(low)
    return best, ordered()
