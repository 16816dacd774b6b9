"""The stage that traces the dense model, once for all of its plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.graph.store import WeightStore
from ...exporter.graph.trace import trace_into
from ...exporter.pruning.whole import deployable
from .kinds import outputs_of, unpruned
from .stage import Stage

if TYPE_CHECKING:
    from .view import View


class Dense(Stage):
    """`dense.onnx` as traced, its weights in a file beside it.

    Where tokens are pruned it is a plan that removes none, so that it differs from the pruned graph by that alone.
    """

    name = "dense"
    reads = ("export.batch", "export.compares", "export.tokens", "prunes")
    takes = ("dense",)

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Trace it."""
        section, plan = view.recipe.export, unpruned(view.dense) if view.recipe.prunes else None
        source = deployable(view.dense, plan, outputs_of(section, "dense"), section.compares)
        with WeightStore(folder) as store:
            trace_into(store, "dense.onnx", source, section.batch)
