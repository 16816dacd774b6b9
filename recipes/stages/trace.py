"""The stage from PyTorch to ONNX: the graphs of a plan, before any pass, beside the dense one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.graph.files import read_bare
from ...exporter.graph.store import WeightStore
from ...exporter.graph.trace import trace_into
from ...exporter.pruning.vit import Output
from ...exporter.pruning.whole import deployable
from .kinds import outputs_of, plan_of, sliced
from .stage import Stage

if TYPE_CHECKING:
    from .view import View


class Trace(Stage):
    """`<kind>.onnx` as traced, with their weights; what the dense graph has too is a link to its file."""

    name = "trace"
    needs = ("slim", "calibrate", "dense")
    reads = ("export.batch", "export.compares", "export.tokens")
    takes = ("model",)
    last_of_torch = True

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Trace the pruned model, and with a token plan its floor."""
        budget, section = plan_of(view), view.recipe.export
        plans = {"pruned": budget} | ({} if budget is None else {"floor": sliced(budget)})
        with WeightStore(folder) as store:
            dense, weights = read_bare(view.folder("dense") / "dense.onnx")
            store.share(dense, "dense.onnx", weights)
            for index, (kind, plan) in enumerate(plans.items()):
                decided: tuple[Output, ...] = ("kept", "merged") if kind == "pruned" else ()
                source = deployable(view.model, plan, (*outputs_of(section, kind), *decided), section.compares)
                trace_into(store, f"{kind}.onnx", source, section.batch)
                view.listener.progress(index + 1, len(plans))
