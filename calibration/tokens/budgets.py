"""Budgets from stages whose sizes are given: counted out, by keep rates, by numbers to remove, or by a preset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget, parse_budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.base import Method
from ...exporter.pruning.methods.options import parse_parameters
from ...exporter.pruning.plan import Preset, StagePlan
from .cost import gmacs
from .rules import Rule

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

PRESET_DEPTH = 12  # blocks of the models that presets were published for


def make_budget(
    shape: ViTShape, method: str, parameters: Mapping[str, Any], stages: Sequence[StagePlan], **informative: Any
) -> Budget:
    """A budget from its stages, with predicted cost.

    Args:
        shape: the model.
        method: the pruning method.
        parameters: its parameters, `place` included.
        stages: with their `patches`; one that removes nothing is left out.
        informative: `statistics` and `provenance`.
    """
    by_block = {stage.block: stage for stage in stages}
    rows: list[dict[str, Any]] = []
    now = shape.tokens
    for block in range(shape.depth):
        row: dict[str, Any] = {"block": block, "before": now, "after": now}
        if block in by_block:
            patches = by_block[block].patches
            assert patches is not None, f"the stage at block {block} has no size yet"
            if patches + shape.prefix_tokens != now:
                now = patches + shape.prefix_tokens
                row |= {"after": now} | dict(by_block[block].options)
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
    shape: ViTShape,
    method: str,
    parameters: Mapping[str, Any],
    rates: Mapping[int, float],
    similar: float = 0.0,
    iterations: int | None = None,
) -> Budget:
    """A budget by hand: `patches * rate` patches stay after each named block, rounded as the method has it.

    Args:
        rates: share of the patches that stays, by block.
        similar: share of every stage's removal that goes by similarity.
        iterations: rounds of scoring; None takes the method's default.

    Raises:
        InputError: a block that the model does not have, or a rate that leaves no patch.
    """
    unknown = sorted(block for block in rates if not 0 <= block < shape.depth)
    if unknown:
        raise InputError(f"prune.keep_rates names block {unknown[0]}, but the model has blocks 0 to {shape.depth - 1}")
    chosen = get_method(method)
    patches = shape.tokens - shape.prefix_tokens
    stages: list[StagePlan] = []
    for block, rate in sorted(rates.items()):
        kept = rounded(patches * rate, chosen)
        if kept < 1:
            raise InputError(f"prune.keep_rates: {rate} of {patches} patches at block {block} leaves none")
        options = chosen.stage_options(patches, kept, similar, iterations)
        stages.append(StagePlan(block, patches=kept, options=options))
        patches = kept
    return make_budget(shape, method, parameters, stages)


def rounded(patches: float, method: Method) -> int:
    """A whole number of patches; the tolerance keeps 0.7 * 10 = 7.000000000000001 from rounding up to 8."""
    return math.ceil(patches - 1e-9) if method.rounds_up else int(patches + 1e-9)


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
    """A budget from the tokens that each stage removes, at most what the method can remove at once.

    Args:
        counts: by stage of `rule`.

    Raises:
        InputError: another number of counts than of stages, or more than there are patches.
    """
    if len(counts) != len(rule.stages):
        raise InputError(
            f"prune.remove lists {len(counts)} numbers, but there are stages at {len(rule.stages)} blocks "
            f"{list(rule.blocks)}; name as many with prune.blocks"
        )
    chosen = get_method(method)
    settings = parse_parameters(chosen, parameters)
    patches, prefix = shape.tokens - shape.prefix_tokens, shape.prefix_tokens
    kept: list[int] = []
    for block, count in zip(rule.blocks, counts, strict=True):
        before = kept[-1] if kept else patches
        most = min(chosen.largest_removal(before + prefix, prefix, settings), before - 1)
        if count > most and chosen.placement.sized_by == "rates":
            raise InputError(f"prune.remove takes {count} of {before} patches at block {block}; take at most {most}")
        kept.append(before - min(count, most))
    return make_budget(shape, method, parameters, rule.sized(chosen, shape.depth, patches, kept))


def from_preset(shape: ViTShape, preset: Preset, **informative: Any) -> Budget:
    """A preset's budget for a model of any depth; its blocks are scaled from twelve.

    Raises:
        InputError: the model has no room for so many stages.
    """
    method = get_method(preset.method)
    settings = parse_parameters(method, preset.parameters)
    fused = int(method.fuses(settings))
    patches = shape.tokens - shape.prefix_tokens
    stages: list[StagePlan] = []
    for stage in scaled(preset.stages, shape.depth):
        if stages and stage.block <= stages[-1].block:
            raise InputError(f"this preset has more stages than a model of {shape.depth} blocks has room for")
        options = dict(stage.options)
        if method.by_similarity and "similar" in options:
            options["similar"] = min(options["similar"], patches // 4)
        if stage.remove is not None:
            prefix = shape.prefix_tokens
            kept = patches - min(stage.remove, method.largest_removal(patches + prefix, prefix, settings))
        else:
            assert stage.keep is not None, f"the preset {preset.name} does not say what stays at block {stage.block}"
            kept = max(1, rounded((patches - options.get("similar", 0)) * stage.keep, method)) + fused
        stages.append(StagePlan(stage.block, patches=kept, options=options))
        patches = kept
    return make_budget(shape, preset.method, preset.parameters, stages, **informative)


def scaled(stages: Sequence[StagePlan], depth: int) -> list[StagePlan]:
    """Stages of a model of 12 blocks at the same shares of another depth; a stage in every block stays one."""
    if depth == PRESET_DEPTH:
        return list(stages)
    if len(stages) == PRESET_DEPTH:
        return [replace(stages[0], block=block) for block in range(depth)]
    return [replace(stage, block=round(stage.block * (depth - 1) / (PRESET_DEPTH - 1))) for stage in stages]
