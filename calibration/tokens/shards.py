"""How far plans are from the dense outputs, shard by shard of the images, so that bad ones are given up early."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...exporter.pruning.budget import Budget
from ...exporter.pruning.shape import task_of_model
from ...exporter.pruning.vit import PrunedViT, State
from ..images.reading import read_some
from ..images.sources import ImageSource, choose
from .judge import MEMORY

SHARD = 32  # images
FACTOR = 3  # one plan of so many goes on at a rung, and the next rung is so many times as far


@dataclass(frozen=True)
class Cut:
    """Images in shards that are each spread over the whole source, and so over its classes.

    Attributes:
        total: images of the source.
        largest: that are used at most.
    """

    total: int
    largest: int

    @property
    def shards(self) -> list[list[int]]:
        """Indices of the images of each."""
        chosen = choose(self.total, count=self.largest)
        count = -(-len(chosen) // SHARD)
        return [chosen[index::count] for index in range(count)]

    @property
    def rungs(self) -> list[int]:
        """Shards after which plans are held against each other; none of them is all."""
        found, count = [1], len(self.shards)
        while found[-1] * FACTOR < count:
            found.append(found[-1] * FACTOR)
        return [rung for rung in found if rung < count]


def survives(value: float, others: Iterable[float], factor: int = FACTOR) -> bool:
    """Whether a plan goes on: it is in the best part of all that came as far, or the best of fewer than `factor`.

    Args:
        value: its divergence so far.
        others: those of the other plans on the same images.
    """
    rivals = list(others)
    return sum(other < value for other in rivals) < max(1, (len(rivals) + 1) // factor)


class Shards:
    """Divergences of plans from the dense outputs, by shard. Images are read when they are first asked for.

    What blocks before a plan's first stage get is the dense model's, so it is kept, within `MEMORY`. An optimizer
    proposes many a plan twice, by other numbers: what is known of one is not run again.

    Args:
        model: the dense model.
        source: the images.
        cut: of them.
    """

    def __init__(self, model: Any, source: ImageSource, cut: Cut) -> None:
        self._model, self._source, self._shards = model, source, cut.shards
        self._task = task_of_model(model)
        self._dense: dict[int, np.ndarray] = {}
        self._states: dict[tuple[int, int], State] = {}
        self._known: dict[tuple[str, int], np.ndarray] = {}
        self._room = MEMORY

    def distances(self, budget: Budget, shard: int) -> np.ndarray:
        """[images of the shard] divergence of a plan's outputs (of features, 1 - cosine)."""
        plan = budget.model_dump_json(include={"method", "parameters", "blocks"}), shard
        if plan not in self._known:
            self._known[plan] = self._distances(budget, shard)
        return self._known[plan]

    @torch.inference_mode()
    def _distances(self, budget: Budget, shard: int) -> np.ndarray:
        pruned = PrunedViT(self._model, budget)
        first = next((row.block for row in budget.blocks if row.is_stage), len(budget.blocks))
        if shard not in self._dense:
            self._begin(pruned, shard)
        at = max(block for of, block in self._states if of == shard and block <= first)
        state = self._states[shard, at]
        for block in range(at, len(budget.blocks)):
            if block <= first:
                self._keep(shard, block, state)
            state, _ = pruned.step(block, state)
        found: np.ndarray = self._task.distance(self._dense[shard], pruned.finish(state).numpy())
        return found

    def _begin(self, pruned: PrunedViT, shard: int) -> None:
        """Read a shard's images; their tokens are kept whatever they take."""
        images = torch.from_numpy(read_some(self._source, self._shards[shard]))
        self._dense[shard] = self._model(images).numpy()
        self._states[shard, 0] = pruned.start(images)

    def _keep(self, shard: int, block: int, state: State) -> None:
        if (shard, block) not in self._states and state.x.nbytes <= self._room:
            self._states[shard, block] = state
            self._room -= state.x.nbytes
