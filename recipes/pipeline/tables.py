"""Latency tables and recipes: what a table is of, whether it fits, and the model of latency that it gives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibration.tokens.cost import graph_macs
from ...calibration.tokens.latency import MeasuredLatency
from ...exporter.core.cores import session_threads, usable_cores
from ...exporter.core.errors import InputError
from ...exporter.core.latency import Conditions, read_table
from ...exporter.core.targets import Target, get_target, group_of
from ...exporter.runtime.machine.environment import cpu_name, nvidia_smi, version

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape
    from .recipe import Recipe
    from .sections.prune import PruneSection, TargetSection

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
    if target.runtime == "tensorrt":
        raise InputError(
            f"a latency table is timed by onnxruntime or OpenVINO, and {target.name} runs engines; give "
            "prune.target.flops_ratio, and see what `vitrim bench` says of the engine"
        )
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


def machine_of(target: Target) -> dict[str, Any]:
    """This machine as a table names it."""
    gpu = None if target.is_cpu else nvidia_smi()
    package = "openvino" if target.runtime == "openvino" else "onnxruntime"
    found = version(package) or version(f"{package}-gpu")
    device = cpu_name() if gpu is None else f"{cpu_name()}, {gpu['name']}"
    return {"device": device, "runtime": f"{package} {found}"}


def export_of(recipe: Recipe) -> dict[str, Any]:
    """What a table says of how a recipe's graphs are made and run."""
    threads = session_threads(recipe.bench.threads) or usable_cores()
    return {"precision": recipe.precision.name, "batch": recipe.export.batch, "threads": threads}


def model_of(shape: ViTShape) -> dict[str, Any]:
    """A model as a table names it."""
    return {"model": shape.name, "tokens": shape.tokens, "gmacs": round(graph_macs(shape) / 1e9, 6)}


def conditions_of(shape: ViTShape, target: Target, recipe: Recipe) -> Conditions:
    """What a table for a recipe is of."""
    return Conditions(target=target.name, **model_of(shape), **machine_of(target), **export_of(recipe))


def uses_table(recipe: Recipe) -> bool:
    """Whether a recipe's target is solved on a table."""
    return recipe.prune is not None and recipe.prune.target is not None and recipe.prune.target.table is not None


def check_recipe(recipe: Recipe) -> None:
    """Refuse, before a model is opened, a table that is of another target, machine or export than a recipe.

    Raises:
        InputError: naming what differs.
    """
    if recipe.prune is None or recipe.prune.target is None or recipe.prune.target.table is None:
        return
    path, target = recipe.prune.target.table, one_target(recipe)
    table = read_table(path)
    table.require(path, MAKER, target=target.name, **machine_of(target), **export_of(recipe))


def measured_latency(section: TargetSection, shape: ViTShape) -> MeasuredLatency:
    """The latencies of a model's plans by the table that a target names.

    Raises:
        InputError: it is of another model or machine.
    """
    assert section.table is not None
    table = read_table(section.table)
    machine = machine_of(get_target(table.of.target))
    table.require(section.table, MAKER, **model_of(shape), **machine)
    return MeasuredLatency(table, shape, section.correction_ms or 0.0)


def without_folder(prune: PruneSection) -> PruneSection:
    """A section whose table is named without the folder that it lies in here."""
    if prune.target is None or prune.target.table is None:
        return prune
    target = prune.target.model_copy(update={"table": Path(prune.target.table).name})
    return prune.model_copy(update={"target": target})


def facts(latency: MeasuredLatency, milliseconds: float) -> dict[str, Any]:
    """What `budget.json` says of a plan that was solved on a table."""
    return {
        "predicted_ms": round(milliseconds, 6),
        "dense_ms": round(latency.table.dense, 6),
        "correction_ms": latency.correction,
        "table": asdict(latency.table.of),
    }
