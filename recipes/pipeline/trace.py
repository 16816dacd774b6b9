"""The stage from PyTorch to ONNX: one graph for each kind, before any pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.graph.store import WeightStore
from ...exporter.graph.trace import trace_into
from ...exporter.pruning.vit import Output
from ...exporter.pruning.whole import deployable
from .kinds import budget_of_kind, kinds_of, outputs_of, plan_of
from .stage import Stage

if TYPE_CHECKING:
    from .view import View


class Trace(Stage):
    """`<kind>.onnx` as traced, their weights in one file beside them."""

    name = "trace"
    needs = ("slim", "calibrate")
    reads = ("export.batch", "export.compares", "export.tokens")
    takes = ("model", "dense")
    last_of_torch = True

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Trace the dense model, the pruned one, and with a token plan its floor."""
        budget, section = plan_of(view), view.recipe.export
        kinds = kinds_of(budget)
        with WeightStore(folder) as store:
            for index, kind in enumerate(kinds):
                decided: tuple[Output, ...] = ("kept", "merged") if kind == "pruned" else ()
                outputs = (*outputs_of(section, kind), *decided)
                model = view.dense if kind == "dense" else view.model
                source = deployable(model, budget_of_kind(kind, budget), outputs, section.compares)
                trace_into(store, f"{kind}.onnx", source, section.batch)
                view.listener.progress(index + 1, len(kinds))
