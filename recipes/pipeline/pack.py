"""The last stage: everything that a bundle holds, put into its staging folder.

What graphs say of the recipe and of the machine enters them here, so that nothing before depends on it, and names no
path of this machine.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exporter.core import layout
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.gate import Gate
from ...exporter.core.layout import WIDER, Kind
from ...exporter.graph.files import read_bare, save, save_beside
from ...exporter.graph.precision.float_nodes import float_nodes
from ...exporter.graph.precision.report import PrecisionReport
from ...exporter.graph.shapes import with_shapes
from ...exporter.graph.surgery import import_graph
from ...exporter.graph.weights import Place
from ...exporter.pruning.budget import Budget, write_budget
from ...exporter.pruning.load import labels_of
from ...exporter.pruning.widths import read_widths, write_widths
from ...exporter.runtime import bundle
from ...exporter.runtime.bench.choice import Choice
from ...exporter.runtime.bench.report import LATER, Bench
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.standalone import pack as standalone
from ...exporter.runtime.tensorrt.identity import EngineIdentity
from .engine import build_into
from .golden import input_facts
from .graphs import Graphs, final_graphs
from .kinds import budget_of_kind, plan_of
from .outcome import GRAPH, judged
from .portable import dump_recipe, portable, portable_command
from .precision import in_manifest
from .predicted import with_prediction
from .provenance import versions
from .readme import bundle_readme
from .stage import Stage

if TYPE_CHECKING:
    from .run import Run

_REPORTS = {
    "passes": (layout.PASSES,),
    "parity": (layout.PARITY, layout.GOLDEN),
    "fidelity": (layout.FIDELITY,),
}


class Pack(Stage):
    """The last one: its result is the bundle, which no cache holds."""

    name = "bundle"
    needs = ("slim", "calibrate", "passes", "forms", "precision", "parity", "fidelity", "bench", "predicted", "gate")


@dataclass(frozen=True)
class Reports:
    """What the stages found, as a bundle holds it.

    Attributes:
        parity: every rung of the proof.
        fidelity: what pruning costs in answers.
        bench: the graphs timed on this machine; None where their target does not run here.
        precision: what was decided; None where float32 was asked for.
        engine: what the engine is; None where none was built.
        gate: whether what the recipe requires holds; None where it requires nothing.
    """

    parity: Parity
    fidelity: Fidelity
    bench: Bench | None
    precision: PrecisionReport | None
    engine: EngineIdentity | None = None
    gate: Gate | None = None


def pack(run: Run, staging: Path, no_engine: str | None, command: list[str], choice: Choice | None = None) -> Reports:
    """Fill a staging folder.

    Args:
        run: with all stages done.
        staging: empty.
        no_engine: why no engine is built here; None: build it.
        command: that asked for the bundle.
        choice: what was tried, where the recipe left the target or the precision open.

    Raises:
        ParityError: the engine fails where the graph passed.
    """
    view, recipe = run.view(Pack), run.recipe
    budget, graphs = plan_of(view), final_graphs(view)
    slimmed = view.folder_if_any("slim")
    widths = None if slimmed is None else read_widths(slimmed / layout.WIDTHS)
    portable_recipe = portable(recipe)
    _copy_graphs(run, portable_recipe, graphs.final, budget, staging)
    for stage, names in _REPORTS.items():
        for name in names:
            shutil.copyfile(view.folder(stage) / name, staging / name)
    timed = view.folder_if_any("bench")
    bench = None if timed is None or not (timed / layout.BENCH).exists() else timed / layout.BENCH
    if bench is not None:
        predicted = view.folder_if_any("predicted")
        if predicted is not None:
            with_prediction(Bench.read(bench, "benchmark"), predicted).write(staging / layout.BENCH)
        else:
            shutil.copyfile(bench, staging / layout.BENCH)
    required, gate = view.folder_if_any("gate"), None
    if required is not None:
        gate = Gate.read(required / layout.GATE, "gate")
        gate.write(staging / layout.GATE)
    (staging / layout.RECIPE).write_text(dump_recipe(portable_recipe))
    if graphs.precision is not None:
        graphs.precision.write(staging / layout.PRECISION)
    fidelity = Fidelity.read(staging / layout.FIDELITY, "fidelity report")
    if budget is not None:
        if recipe.outcome is not None:
            budget = judged(budget, fidelity, not fidelity.on_calibration_images, GRAPH)
        write_budget(budget, staging / layout.BUDGET)
        _write_float_nodes(graphs, staging)
    if widths is not None:
        write_widths(widths, staging / layout.WIDTHS)
    if choice is not None:
        choice.write(staging / layout.CHOICE)
    labels = labels_of(run.dense())
    if labels is not None:
        (staging / layout.LABELS).write_text(json.dumps(labels, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    precision, engine = in_manifest(graphs.precision), None
    if no_engine is None:
        run.listener.stage("engine")
        engine = build_into(staging, run.target, recipe.engine, precision)
    found = Reports(
        Parity.read(staging / layout.PARITY, "parity report"),
        fidelity,
        None if bench is None else Bench.read(staging / layout.BENCH, "benchmark"),
        graphs.precision,
        engine,
        gate,
    )
    (staging / layout.README).write_text(
        bundle_readme(run.name, recipe, run.preprocess, budget, widths, found, no_engine)
    )
    standalone.write(staging)
    bundle.write_manifest(
        staging,
        versions(),
        portable_command(command),
        preprocess=run.preprocess.to_dict(),
        target=run.target.name,
        batch=recipe.export.batch,
        input=input_facts(recipe.export, run.preprocess),
        precision=precision,
        engine=no_engine or "built",
        bench=LATER if bench is None else None,
    )
    return found


def _copy_graphs(
    run: Run, recipe: dict[str, Any], graphs: dict[str, Path], budget: Budget | None, staging: Path
) -> None:
    """Every graph under its name in a bundle, with what a reader of the file alone should know."""
    facts = {"recipe": recipe, "preprocess": run.preprocess.to_dict(), "versions": versions()}
    places: dict[Kind, dict[str, Place]] = {}
    for kind in Kind:
        path = graphs.get(kind)
        if path is None or (kind is Kind.PROOF and path == graphs[Kind.PRUNED]):
            continue
        plan = budget_of_kind(Kind.PRUNED if kind in (Kind.PROOF, *WIDER) else kind, budget)
        own = {**facts, "budget": None if plan is None else plan.model_dump(mode="json")}
        texts = {key: json.dumps(value, sort_keys=True) for key, value in own.items()}
        model, weights = read_bare(path)
        for key, text in {**texts, "kind": str(kind), "target": run.target.name}.items():
            model.metadata_props.add(key=f"vitrim.{key}", value=text)
        if kind is Kind.PROOF:
            save_beside(model, staging / kind.filename, places[Kind.PRUNED], weights)
        else:
            places[kind] = save(model, staging / kind.filename, weights)


def _write_float_nodes(graphs: Graphs, staging: Path) -> None:
    """Which nodes of the pruned float32 graph any quantizer is to leave in float, and which file that graph is."""
    model, weights = read_bare(graphs.float32["pruned"])
    kind = Kind.FP32 if "fp32" in graphs.final else Kind.PRUNED
    marked = {"graph": kind.filename, "nodes": float_nodes(import_graph(with_shapes(model), weights))}
    (staging / layout.FLOAT_NODES).write_text(json.dumps(marked, indent=2) + "\n")
