"""From scores of units to widths: one threshold over all units, found for a target cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.pruning.slim import BlockParts
from ...exporter.pruning.widths import BlockWidths, Widths
from .cost import UnitCost
from .scores import UnitScores


def global_values(scores: UnitScores, cost: UnitCost) -> UnitScores:
    """What the global rule compares: X-Pruner's masks as they are, estimated losses by what the unit costs."""
    if not scores.losses:
        return scores
    return UnitScores(
        tuple(value / price for value, price in zip(scores.heads, cost.head, strict=True)),
        tuple(value / price for value, price in zip(scores.neurons, cost.neuron, strict=True)),
    )


def ranks(scores: np.ndarray) -> np.ndarray:
    """The place of every unit in its layer as a share in (0, 1): the lowest score of n has 0.5 / n."""
    places = np.empty(len(scores))
    places[np.argsort(scores, kind="stable")] = (np.arange(len(scores)) + 0.5) / len(scores)
    return places


def threshold_values(scores: UnitScores, rates: tuple[Sequence[float], Sequence[float]]) -> UnitScores:
    """What learned layer-wise rates compare: how far above its layer's threshold a unit stands, in ranks.

    A layer whose rate is r drops the share r of its units that scores least (METHODS' trap 4 keeps them instead).
    """
    return UnitScores(
        tuple(ranks(score) - rate for score, rate in zip(scores.heads, rates[0], strict=True)),
        tuple(ranks(score) - rate for score, rate in zip(scores.neurons, rates[1], strict=True)),
    )


def check_reachable(
    cost: UnitCost, target: float, multiple: int = 16, heads: bool = True, neurons: bool = True
) -> None:
    """Refuse a target that no widths of `narrow` meet.

    Raises:
        InputError: with the least that a model costs.
    """
    least = cost.of(
        [min(1, whole) for whole in cost.heads] if heads else cost.heads,
        [min(multiple, whole) for whole in cost.neurons] if neurons else cost.neurons,
    )
    if least > target:
        raise InputError(
            f"slim.target asks for {target:.4g}, but the narrowest model that may be made costs {least:.4g} "
            f"of {cost.dense:.4g}; ask for more, or let heads and neurons both go"
        )


def narrow(
    parts: Sequence[BlockParts],
    values: UnitScores,
    cost: UnitCost,
    target: float,
    *,
    multiple: int = 16,
    heads: bool = True,
    neurons: bool = True,
) -> Widths:
    """Keep the units above the lowest common threshold that meets a target.

    Every block keeps at least one head, of those that could leave, and `multiple` neurons, and neurons in whole
    multiples, which vector units and tensor cores want. What rounding leaves of the target is filled with the best
    neurons that went.

    Args:
        parts: the model's units.
        values: by unit, what is compared across layers.
        cost: of the units.
        target: the most that the model may cost.
        multiple: of the number of neurons.
        heads, neurons: whether heads and neurons may go.

    Raises:
        InputError: no widths are that cheap.
    """
    check_reachable(cost, target, multiple, heads, neurons)
    every = np.concatenate([*(values.heads if heads else ()), *(values.neurons if neurons else ())] or [np.zeros(1)])
    steps = np.concatenate([[-np.inf], np.unique(every)])

    def counts(threshold: float) -> tuple[list[int], list[int]]:
        stay_heads = [_at_least_one(value, threshold) if heads else len(value) for value in values.heads]
        stay_neurons = [_rounded(value, threshold, multiple) if neurons else len(value) for value in values.neurons]
        return stay_heads, stay_neurons

    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if cost.of(*counts(steps[middle])) <= target:
            high = middle
        else:
            low = middle + 1
    stay_heads, stay_neurons = counts(steps[low])
    if neurons:
        _fill(values, cost, target, multiple, stay_heads, stay_neurons)
    rows = [
        BlockWidths(
            block=part.path,
            heads_before=part.heads,
            heads=_best(values.heads[index], stay_heads[index]),
            neurons_before=part.neurons,
            neurons=_best(values.neurons[index], stay_neurons[index]),
        )
        for index, part in enumerate(parts)
    ]
    return Widths(blocks=tuple(rows))


def _at_least_one(value: np.ndarray, threshold: float) -> int:
    """Units above a threshold, or one; none where there is none."""
    return min(len(value), max(1, int((value > threshold).sum())))


def _rounded(value: np.ndarray, threshold: float, multiple: int) -> int:
    """Units above a threshold, rounded to a multiple; a whole layer stays whole, whatever its width."""
    above = int((value > threshold).sum())
    return min(len(value), max(multiple, round(above / multiple) * multiple)) if above < len(value) else above


def _fill(
    values: UnitScores, cost: UnitCost, target: float, multiple: int, heads: list[int], neurons: list[int]
) -> None:
    """Give back the best neurons while the target allows, in place."""
    order = [np.sort(value)[::-1] for value in values.neurons]
    while True:
        room = target - cost.of(heads, neurons)
        fits = []
        for index, value in enumerate(order):
            step = min(multiple, len(value) - neurons[index])
            if step and cost.neuron[index] * step <= room:
                fits.append((float(value[neurons[index] : neurons[index] + step].mean()), -index, step))
        if not fits:
            return
        _, index, step = max(fits)
        neurons[-index] += step


def _best(value: np.ndarray, count: int) -> tuple[int, ...]:
    """Indices of the highest values, ascending; of equal ones the first stay."""
    return tuple(sorted(int(index) for index in np.argsort(-value, kind="stable")[:count]))
