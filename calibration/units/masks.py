"""X-Pruner's explainability-aware masks (arXiv 2303.04935, phase 1): one factor a class for every head and neuron.

The masks multiply the outputs of heads (before the projection) and of MLP neurons (before the second linear layer) of
images of their class; the backbone is frozen. At inference there is no label, so masks are summed over classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...exporter.core.errors import InputError
from ...exporter.pruning.gates import Gates, gated
from ...exporter.pruning.slim import parts_of
from ...exporter.pruning.units import blocks_of
from ..images.reading import read_some, shuffled
from ..images.sources import ImageSource
from .scores import UnitScores


@dataclass(frozen=True)
class ClassMasks:
    """Learned masks, and the mean loss of every epoch.

    Attributes:
        heads: by block, [classes, heads].
        neurons: by block, [classes, neurons].
        losses: by epoch, mean over images of cross-entropy and penalties.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]
    losses: tuple[float, ...]

    def scores(self, classes: Sequence[int] | None = None) -> UnitScores:
        """Sum over classes of the absolute masks, over its layer's mean (v1 of the paper: "absolute sum").

        Args:
            classes: only these, for a model that will see no others.
        """
        chosen = slice(None) if classes is None else list(classes)

        def total(mask: Tensor) -> np.ndarray:
            return mask[chosen].abs().sum(0).double().numpy()

        return UnitScores(tuple(map(total, self.heads)), tuple(map(total, self.neurons))).by_layer_mean()


def penalty(masks: Sequence[Tensor], sparse: float, smooth: float) -> Tensor:
    """The paper's Eq. 7, a sum of squares, and Eq. 6 as a sum of absolute second differences along the units.

    Both are means over classes, so that their weights suit any number of classes. The printed Eq. 6 is not known; the
    reading along the features is one of two public ones.
    """
    total = torch.zeros(())
    for mask in masks:
        total = total + sparse * mask.square().sum(1).mean()
        if smooth and mask.shape[1] > 2:
            total = total + smooth * mask.diff(n=2, dim=1).abs().sum(1).mean()
    return total


def learn_masks(
    model: nn.Module,
    source: ImageSource,
    classes: int,
    *,
    epochs: int = 10,
    lr: float = 1.0,
    sparse: float = 0.1,
    smooth: float = 1e-5,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ClassMasks:
    """Learn the masks on labelled images, weights frozen.

    Args:
        model: a slimmable model in eval mode, without gradients.
        source: labelled images.
        classes: of the model.
        epochs: over the images; the paper has 50.
        lr: of SGD with momentum 0.9. A mask's gradient is the share that one unit has in the mean loss of a batch,
            about a thousandth of a weight's, so the rate is far above those for weights.
        sparse, smooth: weights of the two penalties, see `penalty`. What no class needs is only moved by the first, so
            too small a weight leaves an order that is little better than chance.
        batch: images per step.
        seed: of the order.
        progress: called with (steps done, steps).

    Raises:
        InputError: there are no labels.
        UnsupportedError: the model cannot be slimmed.
    """
    if source.labels is None:
        raise InputError(
            "slim.method xpruner learns masks by class and needs labelled images: give a folder of class folders, or "
            "take slim.method: taylor"
        )
    parts, blocks = parts_of(model), blocks_of(model)
    labels = torch.from_numpy(np.asarray(source.labels)).long()
    heads = [torch.ones(classes, part.heads, requires_grad=True) for part in parts]
    neurons = [torch.ones(classes, part.neurons, requires_grad=True) for part in parts]
    masks = [*heads, *neurons]
    optimizer = torch.optim.SGD(masks, lr=lr, momentum=0.9)
    generator = np.random.default_rng(seed)
    losses = []
    for epoch in range(epochs):
        steps = shuffled(len(source), batch, generator)
        total = 0.0
        for step, indices in enumerate(steps):
            target = labels[torch.from_numpy(indices)]
            with gated(blocks, Gates([mask[target] for mask in heads], [mask[target] for mask in neurons])):
                logits: Any = model(torch.from_numpy(read_some(source, indices)))
            loss = F.cross_entropy(logits, target) + penalty(masks, sparse, smooth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(indices)
            if progress:
                progress(epoch * len(steps) + step + 1, epochs * len(steps))
        losses.append(total / len(source))
    return ClassMasks(tuple(mask.detach() for mask in heads), tuple(mask.detach() for mask in neurons), tuple(losses))
