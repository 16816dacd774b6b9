"""How far plans are from the dense outputs, on the same images, without running twice what two plans have in common.

The best plan so far keeps what its blocks got. Another plan is run from the first block on in which it differs, piece
by piece of the images, and is given up as soon as it is clearly worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...exporter.pruning.budget import Budget
from ...exporter.pruning.shape import task_of_model
from ...exporter.pruning.vit import PrunedViT, State

MEMORY = 1 << 30  # bytes that the kept tokens may take
# Standard errors of the mean difference by which a plan must be worse to be given up, and better to be taken: of many
# plans that are alike, one seems best on the images at hand by chance alone.
CLEARLY, ENOUGH = 2.0, 1.0


@dataclass(frozen=True)
class Verdict:
    """What was found of a plan.

    Attributes:
        values: [images] divergence from the dense outputs (of features, 1 - cosine), in the judge's order of images.
        states: what blocks got, by block and piece, from the first one on that was run anew.
    """

    values: np.ndarray
    states: dict[int, list[State]]

    @property
    def kl(self) -> float:
        """The mean divergence."""
        return float(self.values.mean())


class Judge:
    """Divergences of plans on some images, each held against the best one so far.

    Args:
        model: the dense model.
        images: [n, channels, height, width]; they should be in random order, or spread: a piece takes every so many.
        start: the first plan, which is the best one until another is taken.
        batch: images in a piece.

    Attributes:
        best: the plan that others are held against.
        kl: its divergence.
        seen: images that plans were judged on, all in all.
    """

    @torch.inference_mode()
    def __init__(self, model: Any, images: torch.Tensor, start: Budget, batch: int = 32) -> None:
        count = -(-len(images) // batch)
        pieces = [images[index::count] for index in range(count)]
        self._model, self._dense = model, [model(piece).numpy() for piece in pieces]
        self._task = task_of_model(model)
        pruned = PrunedViT(model, start)
        first = [pruned.start(piece) for piece in pieces]
        size = sum(state.x.nbytes for state in first)
        every = -(-len(start.blocks) * size // MEMORY)  # so many blocks apart fit into memory
        self._held = range(0, len(start.blocks), every)
        self._states = {0: first}
        self.best, self._values, self.seen = start, np.empty(0), 0
        found = self.judge(start)
        assert found is not None, "nothing can be worse than no plan"
        self.take(start, found)

    @torch.inference_mode()
    def judge(self, budget: Budget) -> Verdict | None:
        """Run a plan of the same method; None where it is clearly worse than the best one."""
        pruned, depth = PrunedViT(self._model, budget), len(budget.blocks)
        common = agree_until(self.best, budget) if len(self._values) else 0
        first = max(block for block in self._states if block <= common)
        states: dict[int, list[State]] = {block: [] for block in self._held if block > first}
        values = np.empty(0)
        for state, dense in zip(self._states[first], self._dense, strict=True):
            for block in range(first, depth):
                if block in states:
                    states[block].append(state)
                state, _ = pruned.step(block, state)
            values = np.append(values, self._task.distance(dense, pruned.finish(state).numpy()))
            self.seen += len(dense)
            if self._is_worse(values):
                return None
        return Verdict(values, states)

    def take(self, budget: Budget, verdict: Verdict) -> None:
        """Hold others against this plan from now on; `verdict` is what `judge` just said of it."""
        anew = min(verdict.states, default=len(budget.blocks))
        self._states = {block: kept for block, kept in self._states.items() if block < anew} | verdict.states
        self.best, self._values = budget, verdict.values

    @property
    def kl(self) -> float:
        """The best plan's mean divergence."""
        return float(self._values.mean())

    def is_better(self, verdict: Verdict) -> bool:
        """Whether a plan is better than the best one by more than chance may make of it."""
        excess = verdict.values - self._values
        return bool(excess.mean() < min(0.0, -ENOUGH * _error(excess)))

    def _is_worse(self, values: np.ndarray) -> bool:
        """Whether the images so far, but not yet all, tell a plan from the best one."""
        if not 1 < len(values) < len(self._values):
            return False
        excess = values - self._values[: len(values)]
        return bool(excess.mean() > CLEARLY * _error(excess))


def _error(values: np.ndarray) -> float:
    """Standard error of the mean; 0 for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def agree_until(one: Budget, other: Budget) -> int:
    """The first block that two plans do not treat alike; the number of blocks where there is none."""
    same_parameters = one.parameters == other.parameters
    for ours, theirs in zip(one.blocks, other.blocks, strict=True):
        if ours != theirs or (ours.is_stage and not same_parameters):
            return ours.block
    return len(one.blocks)
