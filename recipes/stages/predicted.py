"""The stage that holds what a latency table predicted against what the graph takes, measured as the table was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core import layout
from ...exporter.core.latency import latency_of, read_table
from ...exporter.core.targets import get_target
from ...exporter.pruning.budget import Budget
from ...exporter.runtime.bench.report import Bench, Prediction
from ...exporter.runtime.bench.turns import Samples, measure
from ..schema.recipe import Recipe
from ..schema.sections.prune import TargetSection
from .graphs import final_graphs
from .kinds import plan_of
from .plans.tables import measures_here
from .stage import Stage

if TYPE_CHECKING:
    from .view import View

NEAR = 0.03  # relative error of a prediction that is near enough
FILE = "prediction.json"


class Predicted(Stage):
    """`prediction.json`: what was predicted of the pruned graph, and what it takes."""

    name = "predicted"
    needs = ("calibrate", "passes", "forms", "precision", "bench")
    reads = ("prune.target", "export.target")
    timed = True

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Where the target was solved on a table of this machine."""
        return measures_here(recipe)

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Time the dense and the pruned graph as the table's were, by the same clock."""
        section, budget = view.recipe.prune, plan_of(view)
        target = None if section is None else section.target
        assert target is not None
        assert target.table is not None
        assert budget is not None
        table = read_table(target.table)
        graphs = {kind: final_graphs(view).final[kind] for kind in ("dense", "pruned")}
        count, progress = (table.processes, table.rounds), view.listener.progress
        where = get_target(view.recipe.export.target)
        samples = measure(graphs, "dense", where, table.of.threads, *count, progress)
        bench = Bench.read(view.folder("bench") / layout.BENCH, "benchmark")
        prediction_of(samples, bench.warning is not None, budget, target).write(folder / FILE)


def prediction_of(samples: Samples, busy: bool, budget: Budget, target: TargetSection) -> Prediction:
    """A prediction beside what was measured.

    Args:
        samples: of the `dense` and the `pruned` graph.
        busy: whether other work ran meanwhile, so that milliseconds say little.
        budget: whose statistics say what was predicted.
        target: the recipe's.
    """
    told = latency_of(budget.statistics)
    assert told is not None
    predicted, speedup = told.predicted_ms, told.dense_ms / told.predicted_ms
    took = samples.milliseconds("pruned")
    measured = samples.milliseconds("dense") / took
    by_time = target.latency_ms is not None and not busy
    return Prediction(
        predicted_ms=predicted,
        measured_ms=took,
        predicted_speedup=speedup,
        measured_speedup=measured,
        judged_by="ms" if by_time else "speedup",
        error=predicted / took - 1 if by_time else measured / speedup - 1,
        correction_ms=told.correction_ms,
    )


def with_prediction(bench: Bench, folder: Path) -> Bench:
    """A benchmark that says what was predicted of it; `folder` is the stage's."""
    return replace(bench, prediction=Prediction.read(folder / FILE, "prediction"))
