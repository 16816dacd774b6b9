"""What a latency table predicted of an export, held against its benchmark; and the recipe that makes up for a miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...exporter.core import layout
from ...exporter.pruning.budget import Budget, read_budget
from ...exporter.runtime.bench.report import Bench, Prediction
from .recipe import Recipe, TargetSection
from .tables import uses_table

NEAR = 0.03  # relative error of a prediction that is near enough


def prediction_of(bench: Bench, budget: Budget, target: TargetSection) -> Prediction | None:
    """A prediction beside what was measured; None where the plan was not solved on a table.

    Args:
        bench: of the export.
        budget: whose statistics say what was predicted.
        target: the recipe's.
    """
    told = budget.statistics.get("latency")
    if told is None or target.table is None:
        return None
    predicted, speedup = told["predicted_ms"], told["dense_ms"] / told["predicted_ms"]
    by_time = target.latency_ms is not None and bench.warning is None
    return Prediction(
        predicted_ms=predicted,
        measured_ms=bench.pruned.median,
        predicted_speedup=speedup,
        measured_speedup=bench.speedup,
        judged_by="ms" if by_time else "speedup",
        error=predicted / bench.pruned.median - 1 if by_time else bench.speedup / speedup - 1,
        correction_ms=told["correction_ms"],
    )


def with_prediction(bench: Bench, recipe: Recipe, budget: Budget) -> Bench:
    """A benchmark that says what was predicted of it."""
    assert recipe.prune is not None
    assert recipe.prune.target is not None
    return replace(bench, prediction=prediction_of(bench, budget, recipe.prune.target))


def corrected_recipe(recipe: Recipe, folders: Mapping[str, Path]) -> Recipe | None:
    """A recipe with the milliseconds that its table missed, to be solved once more.

    Args:
        recipe: that was exported.
        folders: of its stages.

    Returns:
        None where there is no table, nothing was timed on the target's own runtime, the recipe has a correction
        already, or the prediction is near enough.
    """
    if not uses_table(recipe) or "bench" not in folders or not (folders["bench"] / layout.BENCH).exists():
        return None
    assert recipe.prune is not None
    assert recipe.prune.target is not None
    section, bench = recipe.prune.target, Bench.read(folders["bench"] / layout.BENCH, "benchmark")
    found = prediction_of(bench, read_budget(folders["calibrate"] / layout.BUDGET), section)
    if found is None or bench.cpu_only is not None or section.correction_ms is not None or abs(found.error) <= NEAR:
        return None
    missing = found.predicted_ms * (1 / (1 + found.error) - 1)
    target = section.model_copy(update={"correction_ms": round(missing, 6)})
    prune = recipe.prune.model_copy(update={"target": target})
    return recipe.model_copy(update={"prune": prune}).within(recipe.folder, recipe.file)
