"""Latency tables and recipes: what a table is of, whether it fits, and the model of latency that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....calibration.tokens.cost import graph_macs
from ....calibration.tokens.latency import MeasuredLatency
from ....exporter.core.cores import session_threads, usable_cores
from ....exporter.core.errors import InputError
from ....exporter.core.latency import LATENCY, PACKER, LatencyTable, PlanLatency, read_table
from ....exporter.core.targets import Target, get_target, group_of
from ....exporter.runtime.machine.named import is_of_here, machine_of

if TYPE_CHECKING:
    from ....exporter.pruning.budget import Budget
    from ....exporter.pruning.shape import ViTShape
    from ...schema.recipe import Recipe
    from ...schema.sections.prune import PruneSection, TargetSection

MAKER = "vitrim profile RECIPE -o FILE"


def one_target(recipe: Recipe) -> Target:
    """The target that a table for a recipe is of.

    Raises:
        InputError: there is no table for such recipes, and why.
    """
    targets = group_of(recipe.export.target)
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise InputError(f"a latency table is of one target, and export.target leaves it open; name one of {names}")
    target = targets[0]
    if recipe.precision.name != "fp32":
        raise InputError(
            f"a latency table is of fp32 graphs, and precision.name is {recipe.precision.name}; take fp32 here"
        )
    if recipe.slim is not None:
        raise InputError(
            "a latency table is of a model as it is, and this recipe slims it first; run `vitrim slim`, and give its "
            "checkpoint as model.checkpoint"
        )
    return target


def export_of(recipe: Recipe) -> dict[str, Any]:
    """What a table says of how a recipe's graphs are made and run."""
    return {"precision": recipe.precision.name, "batch": recipe.export.batch, "threads": threads_of(recipe)}


def threads_of(recipe: Recipe) -> int:
    """Threads of the processor that a recipe's graphs run with here."""
    return session_threads(recipe.bench.threads) or usable_cores()


def model_of(shape: ViTShape) -> dict[str, Any]:
    """A model as a table names it."""
    return {"model": shape.name, "tokens": shape.tokens, "gmacs": round(graph_macs(shape) / 1e9, 6)}


def table_named_by(recipe: Recipe) -> str | None:
    """The file of the table that a recipe's target names."""
    return None if recipe.prune is None or recipe.prune.target is None else recipe.prune.target.table


def uses_table(recipe: Recipe) -> bool:
    """Whether a recipe's target is solved on a table."""
    return table_named_by(recipe) is not None


def measures_here(recipe: Recipe) -> bool:
    """Whether an export holds what its table predicts against what the graph takes.

    Not of a table of another machine; nor of engines, which an export does not time, but `vitrim bench` does; nor
    beside an outcome, where a table only says whether the wish is met.
    """
    path = table_named_by(recipe)
    if path is None or recipe.outcome is not None or one_target(recipe).runtime == "tensorrt":
        return False
    return is_of_here(read_table(path))


def check_recipe(recipe: Recipe) -> str | None:
    """Refuse, before a model is opened, a table that is of another target, machine or export than a recipe.

    A table that `run_on_device.py table` made may be of another machine: it says what graphs take there.

    Returns:
        what to tell of a table of another machine; None: it is of this one, or there is none.

    Raises:
        InputError: naming what differs.
    """
    path = table_named_by(recipe)
    if path is None:
        return None
    target, table = one_target(recipe), read_table(path)
    wanted = export_of(recipe)
    if table.packed and not is_of_here(table):
        if recipe.bench.threads is None or not target.is_cpu:  # it is the device whose cores count
            wanted.pop("threads")
        table.require(path, MAKER, target=target.name, **wanted)
        return (
            f"{path} is of {table.of.device} by {table.of.runtime}, not of this machine: the plan is predicted for "
            "that one, and neither measured nor corrected here; there: run_on_device.py bench"
        )
    table.require(path, _maker(table), target=target.name, **machine_of(target), **wanted)
    return None


def _maker(table: LatencyTable) -> str:
    return MAKER if table.packed else f"{MAKER}; for another machine: {PACKER}"


def measured_latency(section: TargetSection, shape: ViTShape) -> MeasuredLatency:
    """The latencies of a model's plans by the table that a target names.

    Raises:
        InputError: it is of another model, or of another machine and not made for that.
    """
    assert section.table is not None
    table = read_table(section.table)
    machine = {} if table.packed else machine_of(get_target(table.of.target))
    table.require(section.table, _maker(table), **model_of(shape), **machine)
    return MeasuredLatency(table, shape, section.correction_ms or 0.0)


def without_folder(prune: PruneSection) -> PruneSection:
    """A section whose table is named without the folder that it lies in here."""
    if prune.target is None or prune.target.table is None:
        return prune
    target = prune.target.model_copy(update={"table": Path(prune.target.table).name})
    return prune.model_copy(update={"target": target})


def with_facts(budget: Budget, latency: MeasuredLatency) -> Budget:
    """A plan whose statistics say what a table says of it."""
    table, took = latency.table, latency.milliseconds(budget)
    told = PlanLatency(round(took, 6), round(table.dense, 6), latency.correction, table.of).to_json()
    return budget.model_copy(update={"statistics": budget.statistics | {LATENCY: told}})
