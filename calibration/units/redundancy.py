"""What is lost when a unit goes and the others are refitted: only what they cannot say in its place.

Units leave a layer one by one, the least lost first. Every time, the inverse of the second moments of those that
are left says which share of a unit's part in the output no linear combination of them gives: the share that repair
cannot bring back. This is the elimination of the optimal brain surgeon, with losses measured by their slopes instead
of by the layer's squared error. Two units that say the same cost nothing each, but much together, so the order counts.

A slope is blind to what the next normalization takes away. In ViT-Ti one neuron gives 99 % of a layer's squared output,
its slope is nearly 0, and without it the model answers nothing. So no unit's squared output is priced far below its
layer's median.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...exporter.pruning.units import blocks_of
from .moments import Moments, ridge
from .scores import UnitScores

LEAST = 0.1  # of its layer's median: the price of a share in the squared output
CANDIDATES = 64  # that are looked at before the whole layer is again


@torch.inference_mode()
def after_repair(model: nn.Module, scores: UnitScores, moments: Moments) -> UnitScores:
    """Losses of units that leave without repair, made losses of units that leave one after the other with repair.

    Args:
        model: whose units are judged.
        scores: estimated losses, as `taylor` gives them.
        moments: of what enters the model's projections and second linear layers.

    Returns:
        losses that rise in the order in which a layer's units should leave.
    """
    blocks = blocks_of(model)
    return UnitScores(
        tuple(
            _in_turn(score, block.attn.proj, moment) if len(score) else score
            for block, score, moment in zip(blocks, scores.heads, moments.heads, strict=True)
        ),
        tuple(
            _in_turn(score, block.mlp.fc2, moment)
            for block, score, moment in zip(blocks, scores.neurons, moments.neurons, strict=True)
        ),
        losses=True,
    )


def _in_turn(scores: np.ndarray, layer: nn.Linear, moment: Tensor) -> np.ndarray:
    """By unit, its loss when its turn has come; never below that of a unit that left before.

    Units only matter more as others leave. So while the cheapest of a few candidates stays below all that are no
    candidates, the next one is found among the candidates alone, and the whole matrix waits.

    Args:
        scores: [units], losses without repair.
        layer: what all units enter, each with `in_features / units` channels.
        moment: [inputs, inputs] of the layer, perhaps with a constant.
    """
    count = len(scores)
    size = layer.in_features // count
    by_unit = layer.weight.double().unflatten(1, (count, size))
    says = torch.einsum("oui,ouj->uij", by_unit, by_unit)
    whole = (says * _own(moment, count, size)).sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    price = torch.from_numpy(scores).double() / whole
    says *= price.clamp(min=LEAST * float(price.median()))[:, None, None]
    added = ridge(moment, layer.in_features)
    inverse = torch.linalg.inv(moment + added.diag())
    alive, found, floor = torch.arange(count), np.empty(count), 0.0
    while len(alive):
        losses = _losses(inverse, says[alive], added[0])
        order = losses.argsort(stable=True)
        few, beyond = order[:CANDIDATES], losses[order[CANDIDATES:]]
        bound = float(beyond.min()) if len(beyond) else np.inf
        channels = (few[:, None] * size + torch.arange(size)).flatten()
        small, left = inverse[channels][:, channels], few
        while len(left):
            now = _losses(small, says[alive[left]], added[0])
            place = int(now.argmin())
            if float(now[place]) > bound and len(left) < len(few):
                break
            floor = max(floor, float(now[place]))
            found[int(alive[left[place]])] = floor
            goes = torch.arange(len(left)) == place
            small, left = _without(small, goes.repeat_interleave(size)), left[~goes]
        gone = torch.ones(len(alive), dtype=torch.bool)
        gone[left] = False
        gone[order[CANDIDATES:]] = False
        inverse, alive = _without(inverse, gone.repeat_interleave(size)), alive[~gone]
    return found


def _losses(inverse: Tensor, says: Tensor, added: Tensor) -> Tensor:
    """By unit, what is lost if it alone goes: the part that the others cannot say is in its block of the inverse.

    Args:
        inverse: of the moments and the ridge.
        says: [units, size, size], the price of every product of a unit's channels.
        added: the ridge, which is no part of what a unit says.
    """
    count, size = says.shape[:2]
    unsaid = torch.linalg.inv(_own(inverse, count, size)) - added * torch.eye(size, dtype=inverse.dtype)
    return (says * unsaid).sum((1, 2))


def _own(matrix: Tensor, count: int, size: int) -> Tensor:
    """The blocks [count, size, size] on a matrix's diagonal that belong to one unit each; a constant has none."""
    inputs = count * size
    blocks = matrix[:inputs, :inputs].reshape(count, size, count, size)
    return blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _without(inverse: Tensor, goes: Tensor) -> Tensor:
    """The inverse of a matrix without some of its rows and columns, from the inverse of the whole."""
    goes = torch.cat([goes, torch.zeros(len(inverse) - len(goes), dtype=torch.bool)])
    stays = ~goes
    left = inverse[stays][:, goes]
    return inverse[stays][:, stays] - left @ torch.linalg.solve(inverse[goes][:, goes], left.T)
