"""A budget for an outcome: decided on calibration images, judged on others, and kept in the budget's statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....calibration.images.sources import ImageSource
from ....calibration.tokens.cost import LatencyModel, graph_macs, total_macs
from ....calibration.tokens.latency import MeasuredLatency
from ....calibration.tokens.outcome import DenseAnswers, Point, cheapest
from ....exporter.core.errors import InputError
from ....exporter.core.fidelity import Fidelity
from ....exporter.core.outcome import (
    MEASURES,
    OUTCOME,
    Measure,
    Outcome,
    Tried,
    Wish,
    best_of,
    fewest_images,
    outcome_of,
)
from ....exporter.pruning.budget import Budget
from .tables import measured_latency, with_facts

if TYPE_CHECKING:
    from ...listener import Listener
    from ...schema.recipe import Recipe
    from .planning import Planning

PYTORCH, GRAPH = "PyTorch", "the graph"


def decide(
    plan: Planning,
    reach: tuple[float, float],
    make: Callable[[float], Budget],
    refine: Callable[[float], Budget],
) -> Budget:
    """The cheapest budget that holds the recipe's outcome on the calibration images, with its margin.

    Args:
        plan: the target and what is known of the model.
        reach: the least and the most multiply-accumulates that plans cost.
        make: the rule's plan within a cost.
        refine: what is taken of it in the end: what a search finds at that cost.

    Raises:
        InputError: the images are too few, or no plan holds it; what can be reached is named.
    """
    assert plan.prune.target is not None
    assert plan.prune.target.outcome is not None
    name, bound = plan.prune.target.outcome
    latency = None if plan.prune.target.table is None else measured_latency(plan.prune.target, plan.shape)
    if latency is not None:
        latency.require(plan.method.name)  # before anything is decided
    measure, source = MEASURES[name], plan.images_for(f"prune.target.{name}")
    _refuse_too_few(measure, bound, len(source))
    answers = DenseAnswers(plan.dense, plan.model, source, progress=plan.listener.progress)
    found, tried = cheapest(make, answers.held_against, measure, bound, reach)
    if found is None:
        raise InputError(_out_of_reach(plan, measure, bound, tried[-1]))
    found = _refined(plan, found, refine, answers, measure, bound)
    rows = [_row(plan, point, measure, bound) for point in tried]
    promised = measure.read(found.answers)
    outcome = Outcome(name, bound, len(source), promised, tuple(rows), wish=_wish(plan, found.budget, latency))
    if outcome.wish is not None:
        plan.listener.note(outcome.wish.told())
    return _with(found.budget if latency is None else with_facts(found.budget, latency), outcome)


def _refined(
    plan: Planning,
    found: Point,
    refine: Callable[[float], Budget],
    answers: DenseAnswers,
    measure: Measure,
    bound: float,
) -> Point:
    """What a search makes of a plan at its cost, where that holds the outcome too."""
    if not found.budget.choosing or not plan.prune.search.trials:
        return found
    budget = refine(found.macs)
    other = Point(budget, found.macs, answers.held_against(budget))
    if measure.holds_surely(measure.read(other.answers), bound):
        return other
    plan.listener.note("prune.search: what it found does not hold the outcome, so the rule's plan is taken")
    return found


def _row(plan: Planning, point: Point, measure: Measure, bound: float) -> Tried:
    figure = measure.read(point.answers)
    cost = round(total_macs(plan.shape, point.budget) / 1e9, 6)
    return Tried(cost, figure, measure.holds_surely(figure, bound))


def _wish(plan: Planning, budget: Budget, latency: MeasuredLatency | None) -> Wish | None:
    """The speed-up that was wished for beside the outcome, and what the table says of the plan, or else the formula."""
    assert plan.prune.target is not None
    if plan.prune.target.speedup is None:
        return None
    if latency is not None:
        return Wish(plan.prune.target.speedup, latency.table.dense / latency.milliseconds(budget), "table")
    share = total_macs(plan.shape, budget) / graph_macs(plan.whole)
    return Wish(plan.prune.target.speedup, LatencyModel.for_batch(plan.batch).speedup(share))


def _refuse_too_few(measure: Measure, bound: float, images: int) -> None:
    """Refuse an outcome that so few images could not show, however good the plan."""
    best, least = best_of(measure, images), fewest_images(measure, bound)
    if measure.holds_surely(best, bound):
        return
    end, side = measure.worse_end(best), "begins" if measure.at_least else "ends"
    most = "has no interval" if end is None else f"{side} at {measure.words(end)}"
    more = "no number of images could" if least is None else f"give {least} or more (images.count)"
    ask = "" if end is None else f", or {_reachable(measure, end)}"
    raise InputError(
        f"prune.target.{measure.name} is {bound:g}, which {images} images cannot show: were all answers the same, the "
        f"95 % interval {most}; {more}{ask}"
    )


def _out_of_reach(plan: Planning, measure: Measure, bound: float, dearest: Point) -> str:
    """What to say where even the plan that removes least does not hold an outcome."""
    figure, cost = measure.read(dearest.answers), total_macs(plan.shape, dearest.budget) / 1e9
    end = measure.worse_end(figure)
    ask = "" if end is None else f"{_reachable(measure, end)}, "
    return (
        f"prune.target.{measure.name} is {bound:g}, but the plan that removes least ({cost:.3f} GMACs) has "
        f"{measure.told(figure)} on {dearest.answers.images} images, whose worse end counts; {ask}give more images, or "
        "take another method, or blocks further back"
    )


def _reachable(measure: Measure, end: float) -> str:
    """What to ask for instead: the best that holds, rounded so that it does."""
    if measure.at_least:
        return f"ask for at most {math.floor(end * 1e4) / 1e4:g}"
    return f"ask for at least {math.ceil(end * 1e4) / 1e4:g}"


def refuse_unlabelled(recipe: Recipe, sources: dict[str, ImageSource], classes: int) -> None:
    """Refuse what a recipe asks of top-1 where images have no labels, or the model no classes.

    Args:
        recipe: its target by outcome and its `require`.
        sources: by section, the images.
        classes: of the model; 0 without a classifier.

    Raises:
        InputError: naming the key and the section.
    """
    if recipe.outcome is not None:
        name, _ = recipe.outcome
        for section, source in sources.items():
            _refuse_unlabelled(f"prune.target.{name}", MEASURES[name], source, section, classes)
    for name in recipe.require.given:
        if name in MEASURES:
            _refuse_unlabelled(f"require.{name}", MEASURES[name], sources["evaluate"], "evaluate", classes)


def _refuse_unlabelled(key: str, measure: Measure, source: ImageSource, section: str, classes: int) -> None:
    if measure.labelled and not classes:
        raise InputError(f"{key} is held against labels, but the model has no classifier; take it out")
    if measure.labelled and source.labels is None:
        raise InputError(
            f"{key} is held against labels, which the images of `{section}` do not have; give class folders, or an "
            ".npz with labels"
        )


def judged(budget: Budget, found: Fidelity, apart: bool, by: str) -> Budget:
    """A budget for an outcome with what other images gave; any other budget as it is.

    Args:
        budget: the plan.
        found: its answers on them.
        apart: whether none of them is a calibration image.
        by: what answered.
    """
    outcome = outcome_of(budget.statistics)
    return budget if outcome is None else _with(budget, outcome.judged_by(found, apart, by))


def judge(budget: Budget, models: tuple[Any, Any], source: ImageSource, apart: bool, listener: Listener) -> Budget:
    """A budget for an outcome, judged in PyTorch on images; any other budget as it is.

    Args:
        budget: the plan.
        models: the dense one, and the one whose tokens go.
        source: the images.
        apart: whether none of them is a calibration image.
        listener: hears progress.
    """
    if outcome_of(budget.statistics) is None:
        return budget
    answers = DenseAnswers(*models, source, progress=listener.progress)
    return judged(budget, answers.held_against(budget), apart, PYTORCH)


def _with(budget: Budget, outcome: Outcome) -> Budget:
    return budget.model_copy(update={"statistics": budget.statistics | {OUTCOME: outcome.to_json()}})
