"""From a recipe's `prune` section to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibration.images.sources import ImageSource
from ...calibration.tokens import budgets, solve
from ...calibration.tokens.cost import LatencyModel, Price, dense_plan, gmacs, gmacs_by_block, graph_macs, model_macs
from ...calibration.tokens.latency import MeasuredLatency
from ...calibration.tokens.presets import get_preset
from ...calibration.tokens.scores import statistics
from ...calibration.tokens.thresholds import calibrate_thresholds, wanted_quantile
from ...exporter.core import layout
from ...exporter.core.errors import InputError
from ...exporter.core.outcome import OUTCOME
from ...exporter.pruning.budget import Budget, read_budget, write_budget
from ...exporter.pruning.methods import DEFAULT, get_method
from ...exporter.pruning.methods.options import check_budget, parameters_of, parse_parameters
from ...exporter.pruning.shape import ViTShape, check_fits_model, describe, with_all_read
from ..listener import Listener
from ..pools.choose import ALONE, Crew
from ..schema.recipe import Recipe
from ..schema.sections.prune import PruneSection
from .plans import outcome
from .plans.planning import Planning
from .plans.search import best_plan
from .plans.tables import MAKER, measured_latency, with_facts, without_folder
from .provenance import provenance
from .stage import Stage, short_hash

if TYPE_CHECKING:
    from .view import View


def from_preset(plan: Planning) -> Budget:
    """A published configuration; parameters of the section stand over its own."""
    assert plan.preset is not None
    own = dict(plan.preset.parameters) | plan.prune.parameters
    return budgets.from_preset(plan.shape, replace(plan.preset, parameters=own))


def from_keep_rates(plan: Planning) -> Budget:
    """Keep rates by block."""
    rates, rule = plan.prune.keep_rates, plan.rule
    assert rates is not None
    similar = rule.stages[0].similar if rule.stages else 0.0
    return budgets.from_keep_rates(plan.shape, plan.method.name, plan.parameters, rates, similar, rule.iterations)


def from_counts(plan: Planning) -> Budget:
    """Numbers of tokens that stages remove."""
    counts, rule = plan.prune.remove, plan.rule
    assert counts is not None
    if isinstance(counts, int):
        counts = budgets.spread(counts, plan.prune.inflection, len(rule.stages))
    return budgets.from_counts(plan.shape, plan.method.name, plan.parameters, counts, rule)


def from_mass(plan: Planning) -> Budget:
    """The patches that hold a share of the importance."""
    prune, name = plan.prune, plan.method.name
    assert prune.mass is not None
    plan.images_for("prune.mass")
    if plan.scores is None:
        raise InputError(f"prune.mass needs importance, which {name} does not have; give a target instead")
    importance = plan.scores.importance
    share = (prune.mass, prune.quantile)
    return solve.from_mass(plan.shape, name, plan.parameters, importance, *share, plan.rule, plan.multiple)


def from_target(plan: Planning) -> Budget:
    """The largest budget within a cost or the cheapest that holds an outcome, or what a search finds at that cost."""
    if plan.prune.target is not None and plan.prune.target.outcome is not None:
        reach = solve.reach(plan.shape, plan.method.name, plan.parameters, plan.rule)
        return outcome.decide(plan, reach, partial(_with_thresholds, plan), partial(_searched, plan))
    return _searched(plan, *wanted_cost(plan))


def _ruled(plan: Planning, limit: float, price: Price | None = None) -> Budget:
    """The rule's largest budget within a cost: in what the price says, or multiply-accumulates."""
    return solve.from_target(plan.shape, plan.method.name, plan.parameters, limit, plan.rule, plan.multiple, price)


def _with_thresholds(plan: Planning, macs: float) -> Budget:
    """The rule's largest budget within a cost, with the thresholds that its parameters ask for."""
    budget = _ruled(plan, macs)
    quantile = wanted_quantile(budget)
    if quantile is None or not budget.choosing:
        return budget
    return calibrate_thresholds(plan.model, budget, plan.images_for("parameters.quantile"), quantile)


def _searched(plan: Planning, limit: float, latency: MeasuredLatency | None = None) -> Budget:
    """The largest budget within a cost, or what a search finds at that cost: milliseconds by a latency, or MACs."""
    price = None if latency is None else latency.price()
    ruled = _ruled(plan, limit, price)
    taken = ruled.statistics.get("multiple", 1)
    if taken != plan.multiple:
        words = "any number of tokens" if taken == 1 else f"multiples of {taken} tokens"
        plan.listener.note(f"no plan in multiples of {plan.multiple} tokens meets the target: it has {words}")
    budget = best_plan(plan, ruled, limit, price) if plan.prune.search.trials else ruled
    return budget if latency is None else with_facts(budget, latency)


def wanted_cost(plan: Planning) -> tuple[float, MeasuredLatency | None]:
    """What a plan may cost: milliseconds by a table, with the latencies that it gives, or multiply-accumulates.

    Raises:
        InputError: see `target_macs` and `tables.measured_latency`.
    """
    target = plan.prune.target
    assert target is not None
    if target.table is None:
        if target.speedup is not None:
            plan.listener.note(
                "prune.target.speedup goes by a formula for a CPU, which knows no stage's cost and nothing of this "
                f"machine; by measurement: {MAKER}, and prune.target.table: FILE"
            )
        return target_macs(plan.prune, plan.whole, plan.batch), None
    latency = measured_latency(target, plan.shape)
    if target.latency_ms is not None:
        return target.latency_ms, latency
    assert target.speedup is not None
    return latency.table.dense / target.speedup, latency


# By the one key of `prune` that says how much goes; `budget`, a file, and `given`, in memory, need no planning.
WAYS: Mapping[str, Callable[[Planning], Budget]] = {
    "target": from_target,
    "preset": from_preset,
    "keep_rates": from_keep_rates,
    "remove": from_counts,
    "mass": from_mass,
}


def target_macs(prune: PruneSection, whole: ViTShape, batch: int) -> float:
    """The recipe's target as multiply-accumulates for one image.

    Ratios are of the model as it came, not yet slimmed, counted as papers do; a speed-up is over its graph.

    Raises:
        InputError: no budget reaches the speed-up.
    """
    assert prune.target is not None
    if prune.target.gflops is not None:
        return prune.target.gflops * 1e9
    if prune.target.flops_ratio is not None:
        return prune.target.flops_ratio * model_macs(whole, dense_plan(whole))
    assert prune.target.speedup is not None
    return LatencyModel.for_batch(batch).mac_ratio(prune.target.speedup) * graph_macs(whole)


def check_prune(prune: PruneSection) -> None:
    """Refuse what can be told from a section alone, before a model is opened: names, parameters, a budget's file.

    Raises:
        InputError: naming the key.
    """
    if prune.budget is not None:
        budget = read_budget(prune.budget)  # its rows are held against the model's later
        parameters_of(budget, f"{prune.budget}: parameters")
        return
    own = None if prune.preset is None else get_preset(prune.preset)
    method = get_method(own.method if own else prune.method or DEFAULT)
    parse_parameters(method, dict(own.parameters if own else {}) | prune.parameters, "prune.parameters")


def make_plan(
    recipe: Recipe,
    model: Any,
    source: ImageSource | None,
    folder: Path,
    listener: Listener,
    dense: Any,
    *,
    crew: Crew = ALONE,
    study: Callable[[str], Path] | None = None,
) -> Budget:
    """Decide a budget as the recipe says.

    Args:
        recipe: its `prune`, `export.batch` and `export.target`.
        model: the model whose tokens go, perhaps slimmed.
        source: calibration images; None where Python gave none.
        folder: where the streamed scores go.
        listener: hears progress.
        dense: the model before it was slimmed, or `model` itself.
        crew, study: see `Planning`.

    Raises:
        InputError: the section does not fit the model; naming the key.
    """
    assert recipe.prune is not None
    prune, shape, whole = recipe.prune, describe(model), describe(dense)
    if recipe.export.tokens is not None:
        shape, whole = with_all_read(shape), with_all_read(whole)
    dense_macs = model_macs(whole, dense_plan(whole))
    if prune.budget is not None:
        return _from_file(prune.budget, shape, dense_macs)
    if prune.given:
        raise InputError(
            "prune.given: this recipe's budget was in memory, handed over in Python; give prune.budget: FILE"
        )
    multiple = prune.multiple or recipe.export.token_multiple
    about = (prune, multiple, recipe.export.batch, model, shape, dense, whole, source, folder, listener)
    plan = Planning(*about, crew, study)
    way = next(make for key, make in WAYS.items() if getattr(prune, key) is not None)
    threshold = plan.method.threshold
    if prune.search.trials and threshold is not None and plan.parameters[threshold.quantile] is not None:
        raise InputError(f"prune.search and parameters.{threshold.quantile} both decide; give one of them")
    budget = way(plan)
    quantile = wanted_quantile(budget)
    if quantile is not None:
        images = plan.images_for("parameters.quantile")
        budget = calibrate_thresholds(model, budget, images, quantile, progress=listener.progress)
    check_budget(plan.method, budget)
    seen = {} if plan.scores is None else statistics(plan.scores)
    seen["gmacs_by_block"] = gmacs_by_block(shape, budget)
    costs, origin = gmacs(shape, budget, dense_macs), provenance(model, source, prune=without_folder(prune))
    return budget.model_copy(update={"gmacs": costs, "statistics": seen | budget.statistics, "provenance": origin})


def _from_file(path: str, shape: ViTShape, dense_macs: int) -> Budget:
    """A budget that is given, checked against the model and its method."""
    budget = read_budget(path)
    check_fits_model(budget, shape, path)
    check_budget(get_method(budget.method), budget)
    seen = budget.statistics | {"gmacs_by_block": gmacs_by_block(shape, budget)}
    seen.pop(OUTCOME, None)  # what was promised of a plan that may have been edited since
    costs = gmacs(shape, budget, dense_macs)
    return budget.model_copy(update={"gmacs": costs, "statistics": seen, "model": shape.name})


class Calibrate(Stage):
    """A token budget: `budget.json`."""

    name = "calibrate"
    needs = ("slim",)
    reads = ("prune", "export.batch", "export.tokens", "export.token_multiple")
    takes = ("model", "dense", "plan", "calibration")

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where there is a prune section."""
        return recipe.prunes

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Decide the budget, or take the one that is handed over."""
        budget = view.plan
        if budget is None:
            seen = (view.recipe, view.model, view.calibration, folder, view.listener, view.dense)
            budget = make_plan(*seen, crew=view.crew, study=view.study_file)
            (folder / "importance.npy").unlink(missing_ok=True)
        write_budget(budget, folder / layout.BUDGET)

    @staticmethod
    def result_key(folder: Path, key: str) -> str:
        """What the graphs depend on: the plan, not the figures behind it."""
        plan = read_budget(folder / layout.BUDGET)
        return short_hash(plan.model_dump(mode="json", include={"method", "parameters", "prefix_tokens", "blocks"}))
