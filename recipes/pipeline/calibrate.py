"""From a recipe's `prune` section to a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibration.images.sources import ImageSource
from ...calibration.tokens import scores as dense_decisions
from ...calibration.tokens.cost import LatencyModel, dense_plan, gmacs, model_macs
from ...calibration.tokens.ppt_thresholds import calibrate_thresholds
from ...calibration.tokens.presets import get_preset
from ...calibration.tokens.rules import default_rule
from ...calibration.tokens.search import search
from ...calibration.tokens.solve import from_counts, from_keep_rates, from_mass, from_preset, from_target, spread
from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget, check_legal, read_budget, write_budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.base import check_method_options, parse_parameters
from ...exporter.pruning.shape import describe
from .listener import Listener
from .provenance import provenance
from .recipe import PruneSection, Recipe
from .stage import Stage, short_hash

if TYPE_CHECKING:
    from .view import View


def target_macs(prune: PruneSection, dense: int, batch: int, stages: int) -> float:
    """The recipe's target as multiply-accumulates for one image; ratios are of the model as it came, not yet slimmed.

    Raises:
        InputError: no budget reaches the speed-up.
    """
    assert prune.target is not None
    if prune.target.gflops is not None:
        return prune.target.gflops * 1e9
    if prune.target.flops_ratio is not None:
        return prune.target.flops_ratio * dense
    assert prune.target.speedup is not None
    return LatencyModel.for_batch(batch).mac_ratio(prune.target.speedup, stages) * dense


def make_plan(recipe: Recipe, model: Any, source: ImageSource, folder: Path, listener: Listener, dense: Any) -> Budget:
    """Decide a budget as the recipe says.

    Args:
        recipe: its `prune` and `export.batch`.
        model: the model whose tokens go, perhaps slimmed.
        source: calibration images.
        folder: where the streamed scores go.
        listener: hears progress.
        dense: the model before it was slimmed, or `model` itself.

    Raises:
        InputError: the section does not fit the model; naming the key.
    """
    assert recipe.prune is not None
    prune, shape = recipe.prune, describe(model)
    whole = describe(dense)
    dense_macs = model_macs(whole, dense_plan(whole))
    if prune.budget is not None:
        budget = read_budget(prune.budget)
        check_legal(
            budget,
            depth=shape.depth,
            tokens=shape.tokens,
            prefix_tokens=shape.prefix_tokens,
            prefix_pooled=shape.prefix_pooled,
            where=prune.budget,
        )
        method = get_method(budget.method)
        check_method_options(budget, method.Parameters, method.StageOptions)
        return budget.model_copy(update={"gmacs": gmacs(shape, budget, dense_macs), "model": shape.name})
    preset = get_preset(prune.preset) if prune.preset is not None else None
    method_name = preset.method if preset else prune.method
    module = get_method(method_name)
    parameters = dict(preset.parameters if preset else {}) | prune.parameters
    parameters = parse_parameters(parameters, module.Parameters, "prune.parameters").model_dump(mode="json")
    if prune.search.trials and parameters.get("quantile") is not None:
        raise InputError("prune.search and parameters.quantile both decide; give one of them")
    statistics: dict[str, Any] = {}
    seen = None
    if hasattr(module, "score"):
        seen = dense_decisions.gather(
            model, source, method_name, parameters, folder / "importance.npy", progress=listener.progress
        )
        statistics = dense_decisions.statistics(seen)
    rule = default_rule(
        shape,
        method_name,
        parameters,
        blocks=prune.blocks,
        stages=prune.stages,
        similar=prune.similar,
        iterations=prune.iterations,
        final=prune.final and prune.remove is None,
    )
    if preset is not None:
        budget = from_preset(shape, preset)
    elif prune.keep_rates is not None:
        budget = from_keep_rates(shape, method_name, parameters, prune.keep_rates, rule)
    elif prune.remove is not None:
        counts = prune.remove
        if isinstance(counts, int):
            counts = spread(counts, prune.inflection, len(rule.blocks))
        budget = from_counts(shape, method_name, parameters, counts, rule)
    elif prune.mass is not None:
        if seen is None:
            raise InputError(f"prune.mass needs importance, which {method_name} does not have; give a target instead")
        budget = from_mass(shape, method_name, parameters, seen.importance, prune.mass, prune.quantile, rule)
    else:
        macs = target_macs(prune, dense_macs, recipe.export.batch, len(rule.blocks))
        budget = from_target(shape, method_name, parameters, macs, rule)
        if prune.search.trials:
            found = search(model, source, budget, macs, prune.search.trials, prune.search.seed, listener.progress)
            budget = found.budget
            statistics["search"] = found.summary()
    quantile = budget.parameters.get("quantile")
    if quantile is not None and method_name == "ppt":
        budget = calibrate_thresholds(model, budget, source, quantile, progress=listener.progress)
        statistics |= budget.statistics
    costs, origin = gmacs(shape, budget, dense_macs), provenance(model, source, prune=prune)
    return budget.model_copy(update={"gmacs": costs, "statistics": statistics, "provenance": origin})


class Calibrate(Stage):
    """A token budget: `budget.json`."""

    name = "calibrate"
    needs = ("slim",)
    reads = ("prune", "export.batch")
    takes = ("model", "dense", "plan", "calibration")

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where there is a prune section."""
        return recipe.prune is not None

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Decide the budget, or take the one that is handed over."""
        budget = view.plan
        if budget is None:
            budget = make_plan(view.recipe, view.model, view.calibration, folder, view.listener, view.dense)
            (folder / "importance.npy").unlink(missing_ok=True)
        write_budget(budget, folder / "budget.json")

    @staticmethod
    def result_key(folder: Path, key: str) -> str:
        """What the graphs depend on: the plan, not the figures behind it."""
        plan = read_budget(folder / "budget.json")
        return short_hash(plan.model_dump(mode="json", include={"method", "parameters", "prefix_tokens", "blocks"}))
