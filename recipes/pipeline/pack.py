"""The last stage: everything that a bundle holds, put into its staging folder.

What is told of the recipe and of the machine enters the graphs here, so that nothing before depends on it, and names no
path of this machine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import ParityError
from ...exporter.graph.trace import add_metadata
from ...exporter.pruning.budget import Budget, write_budget
from ...exporter.pruning.widths import read_widths, write_widths
from ...exporter.runtime import bundle
from ...exporter.runtime.commands import check_folder
from ...exporter.runtime.parity import describe_failure
from ...exporter.runtime.standalone import pack as standalone
from ...exporter.runtime.tensorrt import engine
from .golden import input_facts
from .graphs import final_graphs
from .kinds import budget_of_kind, plan_of
from .portable import dump_recipe, portable, portable_command
from .precision import in_manifest
from .provenance import versions
from .readme import bundle_readme
from .stage import Stage

if TYPE_CHECKING:
    from .run import Run

_NAMES = {"pruned": "model", "dense": "dense", "floor": "floor", "fp32": "model.fp32", "fp16": "model.fp16"}
_REPORTS = {"parity": ("parity.json", "golden.npz"), "bench": ("bench.json",), "fidelity": ("fidelity.json",)}


class Pack(Stage):
    """The last one: its result is the bundle, which no cache holds."""

    name = "bundle"
    needs = ("slim", "calibrate", "passes", "forms", "precision", "parity", "fidelity", "bench")


def pack(run: Run, staging: Path, lack: str | None, command: list[str]) -> dict[str, Any]:
    """Fill a staging folder.

    Args:
        run: with all stages done.
        staging: empty.
        lack: why no engine is built here; None: build it.
        command: that asked for the bundle.

    Returns:
        `parity`, `fidelity`, `bench`, `precision`: what the reports say.

    Raises:
        ParityError: the engine fails where the graph passed.
    """
    view, recipe = run.view(Pack), run.recipe
    budget, graphs = plan_of(view), final_graphs(view)
    slimmed = view.folder_if_any("slim")
    widths = None if slimmed is None else read_widths(slimmed / "widths.json")
    _copy_graphs(run, graphs.final, budget, staging)
    for stage, names in _REPORTS.items():
        for name in names:
            shutil.copyfile(view.folder(stage) / name, staging / name)
    shutil.copyfile(view.folder("passes") / "passes.json", staging / "passes.json")
    (staging / "recipe.yaml").write_text(dump_recipe(recipe))
    if graphs.precision:
        (staging / "precision.json").write_text(json.dumps(graphs.precision, indent=1))
    if budget is not None:
        write_budget(budget, staging / "budget.json")
    if widths is not None:
        write_widths(widths, staging / "widths.json")
    if lack is None:
        run.listener.stage("engine")
        _build(run, staging, in_manifest(graphs.precision))
    reports = {name: json.loads((staging / f"{name}.json").read_text()) for name in ("parity", "fidelity", "bench")}
    text = bundle_readme(run.name, recipe, run.preprocess, budget, widths, reports, lack, graphs.precision)
    (staging / "README.md").write_text(text)
    standalone.write(staging)
    bundle.write_manifest(
        staging,
        versions(),
        portable_command(command),
        preprocess=run.preprocess.to_dict(),
        target=run.target.name,
        batch=recipe.export.batch,
        input=input_facts(recipe.export, run.preprocess),
        precision=in_manifest(graphs.precision),
        engine=lack or "built",
    )
    return {**reports, "precision": graphs.precision}


def _copy_graphs(run: Run, graphs: dict[str, Path], budget: Budget | None, staging: Path) -> None:
    """Every graph under its name in a bundle, with what a reader of the file alone should know."""
    facts = {"recipe": portable(run.recipe), "preprocess": run.preprocess.to_dict(), "versions": versions()}
    for kind, path in graphs.items():
        plan = budget_of_kind("pruned" if kind in ("fp32", "fp16") else kind, budget)
        own = {**facts, "budget": None if plan is None else plan.model_dump(mode="json")}
        texts = {f"vitrim.{key}": json.dumps(value, sort_keys=True) for key, value in own.items()}
        add_metadata(
            path, staging / f"{_NAMES[kind]}.onnx", texts | {"vitrim.kind": kind, "vitrim.target": run.target.name}
        )


def _build(run: Run, staging: Path, precision: dict[str, Any]) -> None:
    """The engine, held against the golden outputs like the graph before it."""
    recipe = run.recipe
    engine.build_engine(
        staging / "model.onnx",
        staging / "model.engine",
        precision=precision["name"],
        pinned=precision["float32_nodes"],
        pins_may_miss=True,
        workspace_mib=recipe.engine.workspace_mib,
    )
    before = json.loads((staging / "parity.json").read_text())
    parity = check_folder(staging, recipe.parity.atol, recipe.parity.tie, recipe.bench.threads, before)
    (staging / "parity.json").write_text(json.dumps(parity, indent=2))
    if not parity["passed"]:
        raise ParityError(describe_failure(parity))
