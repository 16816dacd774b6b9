"""X-Pruner's learned layer-wise thresholds (phase 2): a pruning rate for every layer under a constraint on the cost.

The rate r of a layer cuts the share r of its units that scores least. The cut is soft while it is learned,
`0.5 * (1 + tanh(n * (rank - r)))` with a steepness n that grows, so the task's loss reaches every rate; the multiplier
of the constraint goes up its gradient (dual ascent) while the rates go down theirs. Ranks, not raw masks, stand against
the rate, so that one steepness suits every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...exporter.pruning.gates import Gates, gated
from ...exporter.pruning.units import blocks_of
from ..images.reading import read_some, shuffled
from ..images.sources import ImageSource
from .cost import UnitCost
from .scores import UnitScores
from .select import ranks

STEEPNESS = (5.0, 30.0)  # annealed from, to
FIRST_RATE = 0.1


@dataclass(frozen=True)
class Rates:
    """Learned pruning rates and how the constraint went.

    Attributes:
        heads, neurons: by block, the share that goes.
        cost: by step, the soft model's share of the dense cost.
        multiplier: by step, the constraint's.
    """

    heads: tuple[float, ...]
    neurons: tuple[float, ...]
    cost: tuple[float, ...]
    multiplier: tuple[float, ...]


def soft_gate(rank: Tensor, rate: Tensor, steepness: float) -> Tensor:
    """Near 1 for units that rank above the rate, near 0 below; differentiable in the rate."""
    return 0.5 * (1 + torch.tanh(steepness * (rank - rate)))


def task_loss(logits: Tensor, dense: Tensor | None, labels: Tensor | None) -> Tensor:
    """Cross-entropy with the labels, or the divergence from the dense model's answers where there are none."""
    if labels is not None:
        return F.cross_entropy(logits, labels)
    assert dense is not None
    return F.kl_div(logits.log_softmax(-1), dense.log_softmax(-1), log_target=True, reduction="batchmean")


def learn_rates(
    model: nn.Module,
    scores: UnitScores,
    cost: UnitCost,
    target: float,
    source: ImageSource,
    *,
    epochs: int = 10,
    lr: float = 0.1,
    ascent: float = 0.5,
    penalty: tuple[float, float] = (5.0, 50.0),
    batch: int = 32,
    seed: int = 0,
    heads: bool = True,
    neurons: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Rates:
    """Learn every layer's rate: the task's loss down, the cost to its target, weights frozen.

    Args:
        model: a slimmable model in eval mode, without gradients.
        scores: of the units; only their order within a layer counts.
        cost: of the units.
        target: what the slimmed model may cost.
        source: images, labelled or not.
        epochs: over the images; the paper has 80.
        lr: of Adam, on the logits of the rates.
        ascent: step of the multiplier, per share of the dense cost that is too much.
        penalty: weight of the squared excess at the first and at the last step.
        batch: images per step.
        seed: of the order.
        heads, neurons: whether heads and neurons may go.
        progress: called with (steps done, steps).
    """
    blocks, heads = blocks_of(model), heads and any(cost.heads)
    generator = np.random.default_rng(seed)
    first = float(np.log(FIRST_RATE / (1 - FIRST_RATE)))
    logits = [torch.full((len(blocks),), first, requires_grad=wanted) for wanted in (heads, neurons)]
    places = [[torch.from_numpy(ranks(score)).float() for score in kind] for kind in (scores.heads, scores.neurons)]
    optimizer = torch.optim.Adam([part for part in logits if part.requires_grad], lr=lr)
    multiplier, share = 0.0, target / cost.dense
    costs: list[float] = []
    multipliers: list[float] = []
    total = epochs * -(-len(source) // batch)
    for _ in range(epochs):
        for indices in shuffled(len(source), batch, generator):
            done = len(costs) / max(total - 1, 1)
            steepness = STEEPNESS[0] + (STEEPNESS[1] - STEEPNESS[0]) * done
            weight = penalty[0] + (penalty[1] - penalty[0]) * done
            gates = Gates(
                *(
                    [soft_gate(rank, rate, steepness) if part.requires_grad else torch.ones_like(rank)
                     for rank, rate in zip(kind, part.sigmoid(), strict=True)]
                    for kind, part in zip(places, logits, strict=True)
                )
            )  # fmt: skip
            images = torch.from_numpy(read_some(source, indices))
            labels = None if source.labels is None else torch.from_numpy(np.asarray(source.labels)[indices]).long()
            with torch.no_grad():
                dense = model(images) if labels is None else None
            with gated(blocks, gates):
                answers = model(images)
            excess = cost.of([gate.sum() for gate in gates.heads], [gate.sum() for gate in gates.neurons])
            excess = excess / cost.dense - share
            loss = task_loss(answers, dense, labels) + multiplier * excess + weight * excess.square()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            multiplier = ascended(multiplier, float(excess.detach()), ascent)
            costs.append(float(excess.detach()) + share)
            multipliers.append(multiplier)
            if progress:
                progress(len(costs), total)
    learned = [_rates(part, wanted) for part, wanted in zip(logits, (heads, neurons), strict=True)]
    return Rates(learned[0], learned[1], tuple(costs), tuple(multipliers))


def ascended(multiplier: float, excess: float, ascent: float) -> float:
    """The multiplier one dual step up: it grows while the model costs too much, and never pushes the cost up.

    Going down its gradient instead lets all rates collapse to 0 (METHODS' trap 3).
    """
    return max(0.0, multiplier + ascent * excess)


def _rates(logits: Tensor, wanted: bool) -> tuple[float, ...]:
    return tuple(float(rate) for rate in logits.detach().sigmoid()) if wanted else (0.0,) * len(logits)
