"""Monte-Carlo search of a budget on the calibration images.

Nothing is trained, so a random configuration can simply be tried: the Zero-TPrune paper tunes its own this way. Here
mutations of the best few plans are drawn, brought to the same cost, and judged by the divergence of their outputs from
the dense model's (KL), which moves long before any top class does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...exporter.core.answers import fidelity
from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import BlockTokens, Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.plan import StagePlan
from ...exporter.pruning.shape import ViTShape, describe
from ...exporter.pruning.vit import PrunedViT
from ..images.sources import ImageSource, choose, read_some
from .rules import Rule
from .solve import builder, fill_to_target, removable, step_sizes, to_multiples

LARGEST = 256  # images that a trial looks at; more would slow it without ranking plans better
_ELITE = 6


@dataclass(frozen=True)
class SearchResult:
    """The best plan and how it was found."""

    budget: Budget
    trials: int
    kl_of_rule: float
    kl_of_best: float
    images: int

    def summary(self) -> dict[str, Any]:
        """Figures for `budget.json`."""
        return {
            "trials": self.trials,
            "images": self.images,
            "kl_of_rule": round(self.kl_of_rule, 6),
            "kl_of_best": round(self.kl_of_best, 6),
        }


def from_budget(budget: Budget) -> tuple[StagePlan, ...]:
    """The stages that a budget came from, before they were brought to its cost."""
    prefix, stages, method = budget.prefix_tokens, choosing(budget), get_method(budget.method)
    if method.placement.sized_by == "counts":
        weights = [float(row.before - row.after) for row in stages]
    else:
        weights = [float(np.log((row.before - prefix) / (row.after - prefix))) for row in stages]
    mean = sum(weights) / len(weights)
    shares = [
        int(row.options.get("similar", 0)) / (row.before - row.after) if method.by_similarity else 0.0 for row in stages
    ]
    return tuple(
        StagePlan(row.block, weight=weight / mean, similar=share)
        for row, weight, share in zip(stages, weights, shares, strict=True)
    )


def choosing(budget: Budget) -> list[BlockTokens]:
    """The stages that choose patches; one that keeps prefix tokens only has nothing to choose."""
    return [row for row in budget.stages if row.after > budget.prefix_tokens]


def mutate(
    candidate: tuple[StagePlan, ...], depth: int, generator: random.Random, with_similar: bool
) -> tuple[StagePlan, ...]:
    """Change one or two things: a block, a weight, a similarity share, or the number of stages (2 to 4)."""
    stages = list(candidate)
    kinds = ["block", "block", "weight", "weight", "weight", "add", "drop"] + ["similar"] * (2 * with_similar)
    for _ in range(generator.choice((1, 1, 2))):
        kind, index = generator.choice(kinds), generator.randrange(len(stages))
        stage = stages[index]
        used = {other.block for other in stages}
        if kind == "block":
            block = stage.block + generator.choice((-1, 1))
            if 0 <= block < depth and block not in used:
                stages[index] = replace(stage, block=block)
        elif kind == "weight":
            stages[index] = replace(stage, weight=max(0.1, stage.weight * generator.choice((0.6, 0.8, 1.25, 1.6))))
        elif kind == "similar":
            share = min(1.0, max(0.0, stage.similar + generator.choice((-0.3, -0.15, 0.15, 0.3))))
            stages[index] = replace(stage, similar=share)
        elif kind == "add" and len(stages) < 4:
            free = [number for number in range(depth) if number not in used]
            if free:
                block, weight = generator.choice(free), generator.choice((0.5, 1.0))
                stages.append(replace(stage, block=block, weight=weight))
        elif kind == "drop" and len(stages) > 2:
            stages.pop(index)
        stages.sort(key=lambda one: one.block)
    return tuple(stages)


def to_budget(
    candidate: tuple[StagePlan, ...], shape: ViTShape, like: Budget, macs: float, multiple: int = 1
) -> Budget | None:
    """The candidate's largest budget within a cost, in such multiples; None where its stages cannot reach it."""
    whole, prefix, method = shape.tokens - shape.prefix_tokens, shape.prefix_tokens, get_method(like.method)
    final = like.stages[-1].after == like.prefix_tokens
    iterations = next((row.options["iterations"] for row in choosing(like) if "iterations" in row.options), None)
    rule = Rule(candidate, iterations, final)
    build, cost = builder(shape, like.method, like.parameters, rule)
    most = removable(method, prefix, like.parameters)
    sizes = step_sizes(method, whole, most, rule)
    kept = fill_to_target(sizes, whole, cost, macs, most)
    if kept is not None and multiple > 1:
        kept = to_multiples(kept, multiple, whole, prefix, cost, macs, most)
    return None if kept is None else build(kept)


@torch.inference_mode()
def search(
    model: Any,
    source: ImageSource,
    start: Budget,
    macs: float,
    trials: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 32,
) -> SearchResult:
    """Look for a better budget at the same cost.

    Args:
        model: the dense model.
        source: calibration images, of which at most `LARGEST`, spread evenly over them, are used.
        start: the rule's budget; the tokens of all others are multiples as its are, see `solve.from_target`.
        macs: cost that no trial may pass.
        trials: plans to run.
        seed: of the draws; the same seed, model and images give the same budget.
        progress: called with (trials done, trials).
        batch: images per forward pass.

    Returns:
        the plan with the smallest divergence from the dense outputs; the rule's own if none is better.
    """
    if not choosing(start):
        raise InputError("prune.search needs a budget that prunes; lower the target")
    shape = describe(model)
    depth = shape.depth - (1 if start.stages[-1].after == start.prefix_tokens else 0)
    images = torch.from_numpy(read_some(source, choose(len(source), count=LARGEST)))
    dense = torch.cat([model(piece) for piece in images.split(batch)]).numpy()

    def judge(budget: Budget) -> float:
        pruned = PrunedViT(model, budget)
        outputs = [pruned.trace(piece).logits for piece in images.split(batch)]
        logits = torch.cat([output for output in outputs if output is not None])
        return fidelity(dense, logits.numpy(), None).kl

    generator, multiple = random.Random(seed), start.statistics.get("multiple", 1)
    first = from_budget(start)
    pool: list[tuple[float, int, tuple[StagePlan, ...], Budget]] = [(judge(start), 0, first, start)]
    tried, attempts = {first}, 0
    of_rule = pool[0][0]
    while len(tried) <= trials and attempts < 50 * trials:
        attempts += 1
        parent = generator.choice(pool[:_ELITE])[2]
        child = mutate(parent, depth, generator, get_method(start.method).by_similarity)
        if child in tried:
            continue
        budget = to_budget(child, shape, start, macs, multiple)
        if budget is None or not choosing(budget):
            continue
        tried.add(child)
        pool.append((judge(budget), len(tried), child, budget))
        pool.sort(key=lambda entry: entry[:2])
        if progress:
            progress(len(tried) - 1, trials)
    return SearchResult(pool[0][3], len(tried) - 1, of_rule, pool[0][0], len(images))
