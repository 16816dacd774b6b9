"""The last stage: everything that a bundle holds, put into its staging folder.

What graphs say of the recipe and of the machine enters them here, so that nothing before depends on it, and names no
path of this machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...exporter.core import layout
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.gate import Gate
from ...exporter.core.layout import WIDER, Kind
from ...exporter.graph.files import read_bare, save, save_beside
from ...exporter.graph.precision.float_nodes import float_nodes
from ...exporter.graph.shapes import with_shapes
from ...exporter.graph.shared import save_shared
from ...exporter.graph.surgery import import_graph
from ...exporter.graph.weights import Place, Weights
from ...exporter.pruning.budget import write_budget
from ...exporter.pruning.load import labels_of
from ...exporter.pruning.widths import read_widths, write_widths
from ...exporter.runtime.bench.choice import Choice
from ...exporter.runtime.bench.report import LATER, Bench
from ...exporter.runtime.bundles.manifest import write_manifest
from ...exporter.runtime.parity import Parity
from ...exporter.runtime.standalone import pack as standalone
from ..schema.portable import dump_recipe, portable, portable_command
from ..stages.golden import input_facts
from ..stages.graphs import Graphs, final_graphs
from ..stages.kinds import budget_of_kind, plan_of
from ..stages.plans.outcome import GRAPH, judged
from ..stages.precision import in_manifest
from ..stages.predicted import with_prediction
from ..stages.provenance import versions
from ..stages.stage import Stage
from .engine import build_into
from .exported import Reports
from .readme import bundle_readme
from .sizes import of_size

if TYPE_CHECKING:
    from onnx import ModelProto

    from .walk import Run

_REPORTS = {
    "passes": (layout.PASSES,),
    "parity": (layout.PARITY, layout.GOLDEN),
    "fidelity": (layout.FIDELITY,),
}


class Pack(Stage):
    """The last one: its result is the bundle, which no cache holds."""

    name = "bundle"
    needs = ("slim", "calibrate", "passes", "forms", "precision", "parity", "fidelity", "bench", "predicted", "gate")


def pack(
    run: Run,
    staging: Path,
    no_engine: str | None,
    command: list[str],
    choice: Choice | None = None,
    more: Mapping[str, Run] = MappingProxyType({}),
) -> Reports:
    """Fill a staging folder.

    Args:
        run: with all stages done.
        staging: empty.
        no_engine: why no engine is built here; None: build it.
        command: that asked for the bundle.
        choice: what was tried, where the recipe left the target or the precision open.
        more: by its name, the run of every further image size. Weights that several graphs have lie in one file then.

    Raises:
        ParityError: the engine fails where the graph passed.
    """
    view, recipe = run.view(Pack), run.recipe
    slimmed = view.folder_if_any("slim")
    widths = None if slimmed is None else read_widths(slimmed / layout.WIDTHS)
    portable_recipe = portable(recipe)
    _write_graphs(run, more, portable_recipe, staging)
    sizes: dict[str, Reports] = {}
    for size, other in more.items():
        with of_size(size):
            sizes[size] = _fill(other, layout.Sized(staging, size), no_engine)
    found = replace(_fill(run, layout.Sized(staging), no_engine), sizes=sizes)
    (staging / layout.RECIPE).write_text(dump_recipe(portable_recipe))
    if widths is not None:
        write_widths(widths, staging / layout.WIDTHS)
    if choice is not None:
        choice.write(staging / layout.CHOICE)
    labels = labels_of(run.dense())
    if labels is not None:
        (staging / layout.LABELS).write_text(json.dumps(labels, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (staging / layout.README).write_text(
        bundle_readme(run.name, recipe, run.preprocess, found.budget, widths, found, no_engine)
    )
    standalone.write(staging)
    entries = {size: _entry(other, sizes[size], no_engine) for size, other in more.items()}
    write_manifest(
        staging,
        versions(),
        portable_command(command),
        target=run.target.name,
        batch=recipe.export.batch,
        **_entry(run, found, no_engine),
        **({"sizes": entries} if entries else {}),
    )
    return found


def _entry(run: Run, found: Reports, no_engine: str | None) -> dict[str, Any]:
    """What a manifest says of one image size."""
    later = {"bench": LATER} if found.bench is None else {}
    return {
        "preprocess": run.preprocess.to_dict(),
        "input": input_facts(run.recipe.export, run.preprocess),
        "precision": in_manifest(found.precision),
        "engine": no_engine or "built",
        **later,
    }


def _fill(run: Run, staging: layout.Sized, no_engine: str | None) -> Reports:
    """Plans and reports of one image size, and its engine, beside its graphs."""
    view, recipe = run.view(Pack), run.recipe
    budget, graphs = plan_of(view), final_graphs(view)
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
    if graphs.precision is not None:
        graphs.precision.write(staging / layout.PRECISION)
    fidelity = Fidelity.read(staging / layout.FIDELITY, "fidelity report")
    if budget is not None:
        if recipe.outcome is not None:
            budget = judged(budget, fidelity, not fidelity.on_calibration_images, GRAPH)
        write_budget(budget, staging / layout.BUDGET)
        _write_float_nodes(graphs, staging)
    engine = None
    if no_engine is None:
        run.listener.stage("engine")
        engine = build_into(staging, run.target, recipe.engine, in_manifest(graphs.precision))
    return Reports(
        Parity.read(staging / layout.PARITY, "parity report"),
        fidelity,
        None if bench is None else Bench.read(staging / layout.BENCH, "benchmark"),
        graphs.precision,
        engine,
        gate,
        budget,
    )


def _write_graphs(run: Run, more: Mapping[str, Run], recipe: dict[str, Any], staging: Path) -> None:
    """Every graph under its name in a bundle; with further image sizes, their common weights in one file."""
    if more:
        graphs = {kind.filename: graph for kind, graph in _graphs(run, recipe)}
        for size, other in more.items():
            graphs |= {layout.of_size(kind.filename, size): graph for kind, graph in _graphs(other, recipe)}
        save_shared(graphs, staging)
        return
    places: dict[Kind, dict[str, Place]] = {}
    for kind, (model, weights) in _graphs(run, recipe):
        if kind is Kind.PROOF:
            save_beside(model, staging / kind.filename, places[Kind.PRUNED], weights)
        else:
            places[kind] = save(model, staging / kind.filename, weights)


def _graphs(run: Run, recipe: dict[str, Any]) -> Iterator[tuple[Kind, tuple[ModelProto, Weights]]]:
    """Every graph of one image size by its kind, with what a reader of the file alone should know."""
    view = run.view(Pack)
    budget, graphs = plan_of(view), final_graphs(view).final
    facts = {"recipe": recipe, "preprocess": run.preprocess.to_dict(), "versions": versions()}
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
        yield kind, (model, weights)


def _write_float_nodes(graphs: Graphs, staging: layout.Sized) -> None:
    """Which nodes of the pruned float32 graph any quantizer is to leave in float, and which file that graph is."""
    model, weights = read_bare(graphs.float32["pruned"])
    kind = Kind.FP32 if "fp32" in graphs.final else Kind.PRUNED
    marked = {"graph": kind.filename, "nodes": float_nodes(import_graph(with_shapes(model), weights))}
    (staging / layout.FLOAT_NODES).write_text(json.dumps(marked, indent=2) + "\n")
