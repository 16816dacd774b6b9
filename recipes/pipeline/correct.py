"""A plan that was solved on a latency table and missed its time, solved once more with what it missed by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ...exporter.core.errors import InputError
from ...exporter.runtime.bench.report import Prediction
from ..schema.recipe import Recipe
from ..stages.predicted import FILE, NEAR, Predicted
from ..stages.stage import Stage
from .walk import Run


def corrected(run: Run, do: Callable[..., None], deciding: Iterable[type[Stage]]) -> Run:
    """A run that was solved on a table and missed its time, solved and done once more; else the same one.

    Args:
        run: all its stages done.
        do: does some stages of a run, or all.
        deciding: those up to the plan.
    """
    recipe = corrected_recipe(run.recipe, run.folders)
    if recipe is None or recipe.prune is None or recipe.prune.target is None:
        return run
    again = run.of(recipe, run.target)
    missed = f"the pruned graph misses its predicted time by {recipe.prune.target.correction_ms:+.3f} ms"
    try:
        do(again, deciding)
    except InputError as error:
        run.listener.note(f"{missed}, and with that the target cannot be met: {error}")
        return run
    run.listener.note(f"{missed}; solved with that, and exported once more")
    do(again)
    return again


def corrected_recipe(recipe: Recipe, folders: Mapping[str, Path]) -> Recipe | None:
    """A recipe with the milliseconds that its table missed, to be solved once more.

    Args:
        recipe: that was exported.
        folders: of its stages.

    Returns:
        None where there is no table, the recipe has a correction already, or the prediction is near enough.
    """
    if Predicted.name not in folders:
        return None
    found = Prediction.read(folders[Predicted.name] / FILE, "prediction")
    assert recipe.prune is not None
    assert recipe.prune.target is not None
    if recipe.prune.target.correction_ms is not None or abs(found.error) <= NEAR:
        return None
    missing = found.predicted_ms * (1 / (1 + found.error) - 1)
    target = recipe.prune.target.model_copy(update={"correction_ms": round(missing, 6)})
    prune = recipe.prune.model_copy(update={"target": target})
    return recipe.model_copy(update={"prune": prune}).within(recipe.folder, recipe.file)
