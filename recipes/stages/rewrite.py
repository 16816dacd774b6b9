"""The stage that rewrites graphs for their target: all passes, then the ends that were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...exporter.core import layout
from ...exporter.core.layout import Kind
from ...exporter.core.targets import get_target
from ...exporter.graph.decisions import tells_decisions, without_decisions
from ...exporter.graph.files import read_bare
from ...exporter.graph.io import rewrite_ends
from ...exporter.graph.lint.check import operator_table, require_fit
from ...exporter.graph.passes.base import PassReport
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.store import WeightStore
from .golden import ends_of
from .graphs import forms_for
from .kinds import KINDS
from .reference import widest_gap_batch
from .stage import Stage

if TYPE_CHECKING:
    from ...exporter.core.targets import Precision
    from .view import View


class Rewrite(Stage):
    """`<kind>.<form>.onnx` for every attention form that is wanted, and `passes.json`, the reports.

    Where the pruned graph is not to tell its stages' decisions, it is the part of `proof.<form>.onnx` that does not;
    the stages behind tell from that file that there are two.

    Weights stay in the file of the traced graphs, which the folder then has too; those that passes make go to another.
    """

    name = "passes"
    needs = ("reference", "trace")
    reads = ("export", "precision.name")
    takes = ("evaluation",)

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Rewrite every graph, each pass held against the graph before it on real images.

        Raises:
            UnsupportedError: a rewritten graph does not lint clean for the target.
        """
        section, traced = view.recipe.export, view.folder("trace")
        target = get_target(section.target)
        image = widest_gap_batch(view.folder("reference"), section.batch)
        ends = ends_of(section, view.preprocess)
        reports: dict[str, Any] = {}
        kinds = [kind for kind in KINDS if (traced / f"{kind}.onnx").exists()]
        with WeightStore(folder) as store:
            for index, kind in enumerate(kinds):
                rewritten, weights = read_bare(traced / f"{kind}.onnx")
                before = operator_table(rewritten)
                passes: list[PassReport] = []
                # The fused form goes on where the decomposed one ended.
                for form in forms_for(target, section.attention):
                    fused = form == "fused"
                    rewritten, more = rewrite(
                        rewritten,
                        target,
                        {"image": image},
                        fused_attention=fused,
                        precision=cast("Precision", view.recipe.precision.name),  # a run has no open one
                        pixels=ends.pixels,
                        weights=weights,
                    )
                    passes = [*passes, *(report for report in more if report.count or not passes)]
                    finished, ended = rewrite_ends(rewritten, ends, image, weights)
                    require_fit(finished, target, f"the {kind} graph")
                    if not section.decisions and tells_decisions(finished):
                        store.save(finished, f"{Kind.PROOF}.{form}.onnx", weights)
                        finished, report = without_decisions(finished)
                        ended.append(report)
                    store.save(finished, f"{kind}.{form}.onnx", weights)
                    reports[f"{kind}.{form}"] = {
                        "passes": [report.to_dict() for report in (*passes, *ended)],
                        "operators_before": before,
                        "operators_after": operator_table(finished),
                    }
                view.listener.progress(index + 1, len(kinds))
        (folder / layout.PASSES).write_text(json.dumps(reports, indent=1))
