"""From decisions, rates or a target to a budget: the tokens after every block, fixed for all images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget, parse_budget
from ...exporter.pruning.methods.matching import largest_reduction
from .cost import dense_plan, gmacs, model_macs
from .presets import Preset, kept_patches
from .scores import patches_for_mass

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape


@dataclass(frozen=True)
class Stage:
    """One stage of a plan: patches that stay after a block, and the method's options."""

    block: int
    patches: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """How stages are placed and filled where a recipe leaves it open; see `vitrim.calibration.tokens.rules`.

    Attributes:
        blocks: 0-based blocks of the stages that choose patches.
        weights: by stage, how strongly it prunes: it keeps `rate ** weight` for a common rate.
        similar: by stage, the share of its removal that goes by similarity.
        iterations: PageRank iterations of every stage; None takes the method's default.
        final: whether the last block drops all patches before its MLP, which is free where only prefix tokens are
            classified.
        steps: `rates`: a stage keeps a share of its patches; `counts`: it removes a number of them, as merging methods
            have it, and at most what one matching can merge.
    """

    blocks: tuple[int, ...]
    weights: tuple[float, ...]
    similar: tuple[float, ...]
    iterations: int | None = None
    final: bool = False
    steps: Literal["rates", "counts"] = "rates"

    def options(self, method: str, stage: int, patches: int, kept: int) -> dict[str, Any]:
        """The method's options of the stage-th stage, which takes `patches` to `kept`."""
        return stage_options(method, patches, kept, self.similar[stage], self.iterations)

    def stages(self, method: str, depth: int, whole: int, kept: Sequence[int]) -> list[Stage]:
        """Stages of a plan that keeps `kept` patches after each of `blocks`, the final one included."""
        before = [whole, *kept[:-1]]
        stages = [
            Stage(block, after, self.options(method, index, patches, after))
            for index, (block, patches, after) in enumerate(zip(self.blocks, before, kept, strict=True))
        ]
        return [*stages, Stage(depth - 1, 0)] if self.final else stages


def stage_options(method: str, patches: int, kept: int, similar: float, iterations: int | None) -> dict[str, Any]:
    """The method's options of one stage: a share of the removal goes by similarity, at most half the patches."""
    if method != "zero_tprune":
        return {}
    count = min(round((patches - kept) * similar), patches - patches // 2)
    # Where similarity removes all that goes, there is no second ranking.
    return {"similar": count} | ({"iterations": iterations} if iterations and count < patches - kept else {})


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """Stage blocks in order.

    Raises:
        InputError: repeated, or not in the model.
    """
    if len(set(blocks)) != len(blocks) or not all(0 <= block < depth for block in blocks):
        raise InputError(f"prune.blocks is {list(blocks)}: name different blocks from 0 to {depth - 1}")
    return tuple(sorted(blocks))


def make_budget(
    shape: ViTShape, method: str, parameters: Mapping[str, Any], stages: Sequence[Stage], **informative: Any
) -> Budget:
    """A budget from its stages, with predicted cost.

    Args:
        shape: the model.
        method: the pruning method.
        parameters: its parameters, `place` included.
        stages: patches after each stage; one that removes nothing is left out.
        informative: `statistics` and `provenance`.
    """
    by_block = {stage.block: stage for stage in stages}
    rows: list[dict[str, Any]] = []
    now = shape.tokens
    for block in range(shape.depth):
        row: dict[str, Any] = {"block": block, "before": now, "after": now}
        if block in by_block and by_block[block].patches + shape.prefix_tokens != now:
            now = by_block[block].patches + shape.prefix_tokens
            row |= {"after": now} | by_block[block].options
        rows.append(row)
    data = {
        "model": shape.name,
        "method": method,
        "parameters": dict(parameters),
        "prefix_tokens": shape.prefix_tokens,
        "blocks": rows,
        **informative,
    }
    budget = parse_budget(data)
    return budget.model_copy(update={"gmacs": gmacs(shape, budget)})


def from_keep_rates(
    shape: ViTShape, method: str, parameters: Mapping[str, Any], rates: Mapping[int, float], rule: Rule
) -> Budget:
    """A budget by hand: `int(patches * rate)` patches stay after each named block (EViT rounds up).

    Raises:
        InputError: a block that the model does not have, or a rate that leaves no patch.
    """
    unknown = sorted(block for block in rates if not 0 <= block < shape.depth)
    if unknown:
        raise InputError(f"prune.keep_rates names block {unknown[0]}, but the model has blocks 0 to {shape.depth - 1}")
    patches = shape.tokens - shape.prefix_tokens
    stages: list[Stage] = []
    for block, rate in sorted(rates.items()):
        kept = math.ceil(patches * rate - 1e-9) if method == "evit" else int(patches * rate + 1e-9)
        if kept < 1:
            raise InputError(f"prune.keep_rates: {rate} of {patches} patches at block {block} leaves none")
        share = rule.similar[0] if rule.similar else 0.0
        stages.append(Stage(block, kept, stage_options(method, patches, kept, share, rule.iterations)))
        patches = kept
    return make_budget(shape, method, parameters, stages)


def from_preset(shape: ViTShape, preset: Preset, **informative: Any) -> Budget:
    """A preset's budget for a model of any depth; its blocks are scaled from twelve."""
    patches, prefix = shape.tokens - shape.prefix_tokens, shape.prefix_tokens
    if len(preset.stages) == 12 and shape.depth != 12:  # in every block
        preset = replace(preset, stages=[replace(preset.stages[0], block=block) for block in range(shape.depth)])
    stages: list[Stage] = []
    for rule in preset.stages:
        block = (
            rule.block
            if shape.depth == 12 or len(preset.stages) == shape.depth
            else round(rule.block * (shape.depth - 1) / 11)
        )
        if stages and block <= stages[-1].block:
            raise InputError(f"this preset has more stages than a model of {shape.depth} blocks has room for")
        options = dict(rule.options)
        if "similar" in options:
            options["similar"] = min(options["similar"], patches // 4)
        if rule.remove is not None:
            kept = patches - min(rule.remove, largest_reduction(patches + prefix, prefix))
        else:
            kept = max(1, kept_patches(patches, replace(rule, options=options), preset.round_up)) + preset.fused
        stages.append(Stage(block, kept, options))
        patches = kept
    return make_budget(shape, preset.method, preset.parameters, stages, **informative)


def spread(remove: int, inflection: float, stages: int) -> list[int]:
    """ToMe's schedules: `remove` tokens at every stage, or (inflection not 0) on a line with that mean.

    The line goes from `int(remove * (1 - inflection))` to its mirror image: -1 removes twice as many at first and none
    at the end.
    """
    first = int(remove * (1 - inflection))
    step = 2 * (remove - first) / max(stages - 1, 1)
    return [int(first + step * index + 1e-9) for index in range(stages)]


def from_counts(
    shape: ViTShape, method: str, parameters: Mapping[str, Any], counts: Sequence[int], rule: Rule
) -> Budget:
    """A budget from the tokens that each stage removes, at most what one matching can merge.

    Args:
        counts: by stage of `rule`.

    Raises:
        InputError: another number of counts than of stages, or more than there are patches.
    """
    if len(counts) != len(rule.blocks):
        raise InputError(
            f"prune.remove lists {len(counts)} numbers, but there are stages at {len(rule.blocks)} blocks "
            f"{list(rule.blocks)}; name as many with prune.blocks"
        )
    patches, prefix = shape.tokens - shape.prefix_tokens, shape.prefix_tokens
    kept: list[int] = []
    for block, count in zip(rule.blocks, counts, strict=True):
        before = kept[-1] if kept else patches
        most = min(largest_reduction(before + prefix, prefix) if rule.steps == "counts" else before, before - 1)
        if count > most and rule.steps == "rates":
            raise InputError(f"prune.remove takes {count} of {before} patches at block {block}; take at most {most}")
        kept.append(before - min(count, most))
    return make_budget(shape, method, parameters, rule.stages(method, shape.depth, patches, kept))


def from_mass(
    shape: ViTShape,
    method: str,
    parameters: Mapping[str, Any],
    importance: np.ndarray,
    mass: float,
    quantile: float,
    rule: Rule,
) -> Budget:
    """Keep, at every stage, as many patches as hold a share of the importance mass in most images.

    Args:
        importance: [images, blocks, patches] of the dense model, rows sum to 1.
        mass: share of the mass.
        quantile: share of images for which the count must suffice.
    """
    counts = patches_for_mass(importance, mass, quantile)
    patches = shape.tokens - shape.prefix_tokens
    kept: list[int] = []
    for block in rule.blocks:
        kept.append(min(kept[-1] if kept else patches, int(counts[block])))
    return make_budget(shape, method, parameters, rule.stages(method, shape.depth, patches, kept))


def from_target(
    shape: ViTShape,
    method: str,
    parameters: Mapping[str, Any],
    macs: float,
    rule: Rule,
) -> Budget:
    """The largest budget that costs at most `macs`: one keep rate for all stages, then single patches.

    No patch more fits at any stage, so the target is met within the cost of one patch: well within 1 % for a ViT of
    100 patches or more, and as near as it can be for a smaller one.

    Args:
        shape: the model.
        macs: multiply-accumulates for one image that must not be passed.
        rule: the stages.

    Raises:
        InputError: the target is out of reach; the reachable range is given.
    """
    whole = shape.tokens - shape.prefix_tokens

    def build(kept: Sequence[int]) -> Budget:
        return make_budget(shape, method, parameters, rule.stages(method, shape.depth, whole, kept))

    def cost(kept: Sequence[int]) -> int:
        return model_macs(shape, build(kept).plan())

    dense = model_macs(shape, dense_plan(shape))
    if macs >= dense:
        raise InputError(
            f"prune.target asks for {macs / 1e9:.3f} GMACs, but the dense model costs {dense / 1e9:.3f}; ask for less"
        )
    if rule.final and cost([whole] * len(rule.blocks)) < 0.99 * macs:
        return from_target(shape, method, parameters, macs, replace(rule, final=False))  # it alone removes too much
    sizes = step_sizes(whole, shape.prefix_tokens, rule)
    kept = fill_to_target(sizes, whole, cost, macs, removable(shape.prefix_tokens, rule))
    if kept is None:
        least = cost(sizes(0.0))
        raise InputError(
            f"prune.target asks for {macs / 1e9:.3f} GMACs, but with stages at blocks {list(rule.blocks)} the least is "
            f"{least / 1e9:.3f}; ask for more, or place stages earlier with prune.blocks"
        )
    return build(kept)


def step_sizes(whole: int, prefix: int, rule: Rule) -> Callable[[float], list[int]]:
    """Patches after each stage as a function of one rate in [0, 1] that grows all of them.

    Args:
        whole: patches before the first stage.
        prefix: prefix tokens of the model.
        rule: a stage of weight w keeps `rate ** w` of its patches, or with `counts` loses `(1 - rate) * w * whole`.
    """
    most = removable(prefix, rule)

    def sizes(rate: float) -> list[int]:
        exact = float(whole)
        kept: list[int] = []
        for weight in rule.weights:
            before = kept[-1] if kept else whole
            if rule.steps == "counts":
                after = before - int((1 - rate) * weight * whole + 1e-9)
            else:
                exact *= rate**weight
                after = int(exact + 1e-9)
            kept.append(max(1, after, before - most(before)))
        return kept

    return sizes


def removable(prefix: int, rule: Rule) -> Callable[[int], int]:
    """How many of some patches one stage can remove."""
    if rule.steps == "counts":
        return lambda patches: largest_reduction(patches + prefix, prefix)
    return lambda patches: patches


def fill_to_target(
    sizes: Callable[[float], list[int]],
    whole: int,
    cost: Callable[[list[int]], int],
    macs: float,
    most: Callable[[int], int],
) -> list[int] | None:
    """Patches after each stage so that no patch more fits into a cost.

    One rate is found by bisection; what rounding leaves over is spent patch by patch, on the last stages first.

    Args:
        sizes: patches after each stage at a rate in [0, 1]; grows with it.
        whole: patches before the first stage.
        cost: multiply-accumulates of a list of kept patches; grows with each of them.
        macs: must not be passed.
        most: how many of some patches one stage can remove.

    Returns:
        kept patches by stage; None where even the least costs more.
    """
    if cost(sizes(0.0)) > macs:
        return None

    def fits(kept: list[int]) -> bool:
        steps = zip([whole, *kept[:-1]], kept, strict=True)
        return cost(kept) <= macs and all(before - after <= most(before) for before, after in steps)

    return _fill(sizes(_bisect(lambda value: cost(sizes(value)) <= macs)), whole, fits)


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
