"""Scores of heads and neurons, and the zero-shot way to get them: first-order Taylor on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...exporter.pruning.gates import Gates, gated
from ...exporter.pruning.slim import BlockParts, parts_of
from ...exporter.pruning.units import blocks_of
from ..images.reading import batches
from ..images.sources import ImageSource


@dataclass(frozen=True)
class UnitScores:
    """How much every head and neuron matters; what scores least goes first.

    Attributes:
        heads: by block, [heads]; none of a block whose heads cannot leave.
        neurons: by block, [neurons].
        losses: whether a score estimates a loss, so that units of different cost are compared by loss over cost.
    """

    heads: tuple[np.ndarray, ...]
    neurons: tuple[np.ndarray, ...]
    losses: bool = False

    def by_layer_mean(self) -> UnitScores:
        """Every layer's scores divided by their mean, as X-Pruner compares masks of different layers."""

        def share(scores: np.ndarray) -> np.ndarray:
            return scores / max(float(scores.mean()), 1e-30) if len(scores) else scores

        return UnitScores(tuple(map(share, self.heads)), tuple(map(share, self.neurons)))


def unit_gates(parts: Sequence[BlockParts], *leading: int, requires_grad: bool = False) -> Gates:
    """Gates of 1 for every unit, [*leading, units]."""
    return Gates(
        [torch.ones(*leading, part.heads, requires_grad=requires_grad) for part in parts],
        [torch.ones(*leading, part.neurons, requires_grad=requires_grad) for part in parts],
    )


def taylor(
    model: nn.Module,
    source: ImageSource,
    *,
    draws: int = 2,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> UnitScores:
    """Mean over images of the squared first-order change of the loss when a unit is switched off.

    With labels the loss is their cross-entropy. Without, classes are drawn from the model's own answers: the mean is
    then the diagonal of the Fisher information, half of which is the divergence that switching a unit off causes.

    Args:
        model: a slimmable model in eval mode.
        source: calibration images.
        draws: classes drawn an image where there are no labels.
        seed: of the draws.
        classes: count images of these labels only; None takes all.
        batch: images per forward pass.
        progress: called with (images done, images).

    Raises:
        UnsupportedError: the model cannot be slimmed.
    """
    parts, blocks = parts_of(model), blocks_of(model)
    generator = torch.Generator().manual_seed(seed)
    sums = [torch.zeros(size) for size in (*(part.heads for part in parts), *(part.neurons for part in parts))]
    done = 0
    for images in batches(source, batch):
        x = torch.from_numpy(images)
        gates = unit_gates(parts, len(x), requires_grad=True)
        leaves = [*gates.heads, *gates.neurons]
        asked = [place for place, leaf in enumerate(leaves) if leaf.shape[1]]
        with gated(blocks, gates):
            logits = model(x)
        if source.labels is not None:
            labels = torch.from_numpy(np.asarray(source.labels[done : done + len(x)])).long()
            targets, counted = [labels], torch.ones(len(x))
            if classes is not None:
                counted = torch.isin(labels, torch.tensor(list(classes))).float()
        else:
            drawn = torch.multinomial(logits.detach().softmax(-1), draws, replacement=True, generator=generator)
            targets, counted = list(drawn.unbind(1)), torch.ones(len(x))
        for index, target in enumerate(targets):
            loss = F.cross_entropy(logits, target, reduction="none") @ counted
            wanted = [leaves[place] for place in asked]
            gradients = torch.autograd.grad(loss, wanted, retain_graph=index + 1 < len(targets))
            for place, gradient in zip(asked, gradients, strict=True):
                sums[place] += gradient.square().sum(0)
        done += len(x)
        if progress:
            progress(done, len(source))
    found = [total.double().numpy() / done for total in sums]
    return UnitScores(tuple(found[: len(parts)]), tuple(found[len(parts) :]), losses=True)
