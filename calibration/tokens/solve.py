"""The largest budget within a cost, or that holds a share of the importance: how many tokens each stage keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.base import Method
from ...exporter.pruning.methods.options import parse_parameters
from .budgets import make_budget
from .cost import Price, macs_price
from .rules import Rule
from .scores import patches_for_mass

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

NEAR = 0.99  # of a target's cost, which a budget must reach


def from_target(
    shape: ViTShape,
    method: str,
    parameters: Mapping[str, Any],
    limit: float,
    rule: Rule,
    multiple: int = 1,
    price: Price | None = None,
) -> Budget:
    """The largest budget whose graph costs at most `limit`, scoring included: one keep rate, then single patches.

    No patch more fits at any stage, so the target is met within the cost of one patch: well within 1 % for a ViT of
    100 patches or more, and as near as it can be for a smaller one. Multiples of several tokens are taken where they
    meet it within 1 %, or as nearly as single ones do; else multiples of the largest divisor that does.

    Args:
        shape: the model.
        limit: cost that must not be passed: multiply-accumulates for one image, or as `price` counts.
        rule: the stages.
        multiple: of which the tokens after every stage that chooses patches should be a multiple.
        price: what budgets cost; None: multiply-accumulates.

    Returns:
        the budget; `multiple` in its statistics says which multiples were taken, where some were asked for.

    Raises:
        InputError: the target is out of reach; the reachable range is given.
    """
    whole, chosen = shape.tokens - shape.prefix_tokens, get_method(method)
    price = price or macs_price(shape)
    build, cost = builder(shape, method, parameters, rule, price)
    asks = f"prune.target asks for {price.says(limit)} {price.unit}, but"
    if limit >= price.dense:
        raise InputError(f"{asks} the dense model costs {price.says(price.dense)}; ask for less")
    if limit >= price.unpruned:
        raise InputError(f"{asks} with nothing removed the graph costs {price.says(price.unpruned)}; ask for less")
    most = removable(chosen, shape.prefix_tokens, parameters)
    sizes = step_sizes(chosen, whole, most, rule)
    kept = fill_to_target(sizes, whole, cost, limit, most)
    if kept is None:
        least = price.says(cost(sizes(0.0)))
        raise InputError(
            f"{asks} with stages at blocks {list(rule.blocks)} the least is {least}; ask for more, or place stages "
            "earlier with prune.blocks"
        )
    if multiple == 1:
        return build(kept)
    for step in (step for step in range(multiple, 0, -1) if multiple % step == 0):
        rounded = to_multiples(kept, step, whole, shape.prefix_tokens, cost, limit, most)
        if rounded is not None:
            return build(rounded).model_copy(update={"statistics": {"multiple": step}})
    raise AssertionError("every number is a multiple of 1")


def reach(shape: ViTShape, method: str, parameters: Mapping[str, Any], rule: Rule) -> tuple[float, float]:
    """The least and the most multiply-accumulates that `from_target` finds a budget for."""
    whole, chosen, price = shape.tokens - shape.prefix_tokens, get_method(method), macs_price(shape)
    sizes = step_sizes(chosen, whole, removable(chosen, shape.prefix_tokens, parameters), rule)
    _, cost = builder(shape, method, parameters, rule, price)
    return cost(sizes(0.0)), min(price.dense, price.unpruned) - 1


def from_mass(
    shape: ViTShape,
    method: str,
    parameters: Mapping[str, Any],
    importance: np.ndarray,
    mass: float,
    quantile: float,
    rule: Rule,
    multiple: int = 1,
) -> Budget:
    """Keep, at every stage, as many patches as hold a share of the importance mass in most images.

    No stage removes more than its method can at once. Counts are rounded up to multiples, so that they hold it still.

    Args:
        importance: [images, blocks, patches] of the dense model, rows sum to 1.
        mass: share of the mass.
        quantile: share of images for which the count must suffice.
        multiple: of which the tokens after every stage are a multiple.
    """
    counts, chosen = patches_for_mass(importance, mass, quantile), get_method(method)
    prefix = shape.prefix_tokens
    patches, most = shape.tokens - prefix, removable(chosen, prefix, parameters)
    kept: list[int] = []
    for block in rule.blocks:
        before = kept[-1] if kept else patches
        least = max(int(counts[block]), before - most(before))
        kept.append(min(before, _up(least + prefix, multiple) - prefix))
    return make_budget(shape, method, parameters, rule.sized(chosen, shape.depth, patches, kept))


def builder(
    shape: ViTShape, method: str, parameters: Mapping[str, Any], rule: Rule, price: Price | None = None
) -> tuple[Callable[[Sequence[int]], Budget], Callable[[Sequence[int]], float]]:
    """What a rule's budget is for some kept patches after each stage, and what its graph costs, scoring included.

    Args:
        price: what budgets cost; None: multiply-accumulates.
    """
    count = (price or macs_price(shape)).of
    whole, chosen = shape.tokens - shape.prefix_tokens, get_method(method)

    def build(kept: Sequence[int]) -> Budget:
        return make_budget(shape, method, parameters, rule.sized(chosen, shape.depth, whole, kept))

    def cost(kept: Sequence[int]) -> float:
        return count(build(kept))

    return build, cost


def step_sizes(method: Method, whole: int, most: Callable[[int], int], rule: Rule) -> Callable[[float], list[int]]:
    """Patches after each stage as a function of one rate in [0, 1] that grows all of them.

    Args:
        method: says whether stages are sized by rates or by counts.
        whole: patches before the first stage.
        most: how many of some patches one stage can remove.
        rule: a stage of weight w keeps `rate ** w` of its patches, or by counts loses `(1 - rate) * w * whole`.
    """

    def sizes(rate: float) -> list[int]:
        exact = float(whole)
        kept: list[int] = []
        for stage in rule.stages:
            before = kept[-1] if kept else whole
            if method.placement.sized_by == "counts":
                after = before - int((1 - rate) * stage.weight * whole + 1e-9)
            else:
                exact *= rate**stage.weight
                after = int(exact + 1e-9)
            kept.append(max(1, after, before - most(before)))
        return kept

    return sizes


def removable(method: Method, prefix: int, parameters: Mapping[str, Any]) -> Callable[[int], int]:
    """How many of some patches one stage can remove."""
    settings = parse_parameters(method, parameters)
    return lambda patches: method.largest_removal(patches + prefix, prefix, settings)


def fill_to_target(
    sizes: Callable[[float], list[int]],
    whole: int,
    cost: Callable[[list[int]], float],
    limit: float,
    most: Callable[[int], int],
) -> list[int] | None:
    """Patches after each stage so that no patch more fits into a cost.

    One rate is found by bisection; what rounding leaves over is spent patch by patch, on the last stages first.

    Args:
        sizes: patches after each stage at a rate in [0, 1]; grows with it.
        whole: patches before the first stage.
        cost: of a list of kept patches; grows with each of them.
        limit: must not be passed.
        most: how many of some patches one stage can remove.

    Returns:
        kept patches by stage; None where even the least costs more.
    """
    if cost(sizes(0.0)) > limit:
        return None

    def fits(kept: list[int]) -> bool:
        return cost(kept) <= limit and is_legal(kept, whole, most)

    return _fill(sizes(_bisect(lambda value: cost(sizes(value)) <= limit)), whole, fits)


def to_multiples(
    wished: Sequence[int],
    step: int,
    whole: int,
    prefix: int,
    cost: Callable[[list[int]], float],
    limit: float,
    most: Callable[[int], int],
) -> list[int] | None:
    """Patches after each stage near those that were wished for, so that the tokens are multiples and the cost is kept.

    Each is rounded to the nearest multiple. Then, while the cost is passed, the stage that was rounded up most loses a
    step; and while there is too much left over, of the stages where a step more fits the one that lacks most gets it.

    Args:
        wished: by `fill_to_target`.
        step: of which the tokens are a multiple.
        whole, cost, limit, most: as there.
        prefix: prefix tokens of the model, which count as tokens.

    Returns:
        kept patches by stage, each less than a step from the wished; None where no such ones are found that cost 0.99
        of `limit`, or as much as the wished.
    """
    kept, enough = list[int](), min(NEAR * limit, cost(list(wished)))
    for wish in wished:
        before = kept[-1] if kept else whole
        lowest = _up(max(1, before - most(before)) + prefix, step)
        highest = (before + prefix) // step * step
        if lowest > highest:
            return None
        kept.append(min(max(round((wish + prefix) / step) * step, lowest), highest) - prefix)

    def moved(by: int, within: float) -> list[int] | None:
        """The stages with one moved that is farthest off the other way; None where none can be."""
        order = sorted(range(len(kept)), key=lambda index: (by * (kept[index] - wished[index]), -index))
        tried = ([*kept[:index], kept[index] + by, *kept[index + 1 :]] for index in order)
        return next((new for new in tried if is_legal(new, whole, most) and cost(new) <= within), None)

    while cost(kept) > limit:
        less = moved(-step, math.inf)
        if less is None:
            return None
        kept = less
    while cost(kept) < enough:
        more = moved(step, limit)
        if more is None:
            return None
        kept = more
    return kept if all(abs(here - wish) < step for here, wish in zip(kept, wished, strict=True)) else None


def is_legal(kept: Sequence[int], whole: int, most: Callable[[int], int]) -> bool:
    """Whether no stage adds patches, drops all, or removes more than it can."""
    steps = zip([whole, *kept[:-1]], kept, strict=True)
    return all(1 <= after <= before <= after + most(before) for before, after in steps)


def _up(count: int, step: int) -> int:
    """The least multiple that is not below a count."""
    return -(-count // step) * step


def _bisect(fits: Callable[[float], bool]) -> float:
    """The largest rate in (0, 1) that fits, to the resolution of one patch in a million."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fill(kept: list[int], whole: int, fits: Callable[[list[int]], bool]) -> list[int]:
    """Spend what rounding left over, patch by patch, on the last stages first."""
    grown = True
    while grown:
        grown = False
        for index in reversed(range(len(kept))):
            limit = whole if index == 0 else kept[index - 1]
            candidate = [*kept[:index], kept[index] + 1, *kept[index + 1 :]]
            if kept[index] < limit and fits(candidate):
                kept, grown = candidate, True
    return kept
