"""One traced graph, rewritten for every target: operators, opset, lint and numbers, through onnxruntime.

    python benchmarks/targets.py

DeiT-S with random weights and a Zero-TPrune budget by default. The error is against the graph as traced, both run by
onnxruntime without its own rewrites, on images whose decisions are no near-ties; no target's own runtime is asked.
Written to benchmarks/results/targets.md with the command.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch

from vitrim import api
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.targets import TARGETS
from vitrim.exporter.graph.files import read_whole
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.pruning.budget import read_budget
from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.cache import StageCache
from vitrim.recipes.pipeline.run import do_all, open_run
from vitrim.recipes.stages.calibrate import Calibrate
from vitrim.recipes.stages.dense import Dense
from vitrim.recipes.stages.reference import Reference, widest_gap_batch
from vitrim.recipes.stages.trace import Trace


@click.command()
@click.option("--model", default="deit_small_patch16_224", show_default=True)
@click.option("--method", default="zero_tprune", show_default=True)
@click.option("--ratio", default=0.65, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--batch", default=1, show_default=True)
@click.option("--out", default=Path("benchmarks/results/targets.md"), type=click.Path(path_type=Path))
def main(model: str, method: str, ratio: float, batch: int, out: Path) -> None:
    """Rewrite for every target and write the tables."""
    traced, feeds, cost = make_graph(model, method, ratio, batch)
    before = run_once(traced, feeds)
    tables, rows = {"traced": operator_table(traced)}, []
    for name, target in TARGETS.items():
        graph, reports = rewrite(traced, target, feeds)
        findings = lint(graph, target)
        tables[name] = operator_table(graph)
        after = run_once(graph, feeds)
        verdict = "clean" if not findings else "; ".join(str(finding) for finding in findings)
        ties = sum(report.near_ties for report in reports)
        rows.append([name, opset_of(graph), sum(tables[name].values()), verdict, *differences(before, after), ties])
        click.echo(" | ".join(map(str, rows[-1])))
    where = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    lines = [f"`python {shlex.join(sys.argv)}`", ""]
    lines += [f"{model}, {method}, {cost[0]:.3f} of {cost[1]:.3f} GMACs, batch {batch}, random weights; {where}.", ""]
    lines += table(
        ["target", "opset", "nodes", "lint", "largest error", "of the largest logit", "same tokens", "near-ties"], rows
    )
    lines += ["", "Nodes by operator:", ""]
    ops = sorted({op for counts in tables.values() for op in counts}, key=lambda op: (-tables["traced"].get(op, 0), op))
    lines += table(["operator", *tables], [[op, *(counts.get(op, "") for counts in tables.values())] for op in ops])
    atomic_write(out, "\n".join(lines) + "\n")


def make_graph(name: str, method: str, ratio: float, batch: int) -> tuple[onnx.ModelProto, dict[str, Any], list[float]]:
    """The pruned model as traced, an input far from near-ties, and the GMACs after and before."""
    recipe = api.recipe(
        {
            "model": {"name": name, "random": 0},
            "images": {"generator": "noise", "count": 8},
            "prune": {"method": method, "target": {"flops_ratio": ratio}},
            "export": {"batch": batch},
            "parity": {"images": 8, "golden": 1},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(recipe, StageCache(Path(folder) / "cache"), Silence())
        do_all(run, (Calibrate, Reference, Dense, Trace))
        budget = read_budget(run.folders["calibrate"] / "budget.json")
        image = widest_gap_batch(run.folders["reference"], batch)
        graph = read_whole(run.folders["trace"] / "pruned.onnx")
    return graph, {"image": image}, [budget.total_gmacs, budget.gmacs["dense"]]


def opset_of(graph: onnx.ModelProto) -> int:
    """The opset that a graph declares."""
    return int(graph.opset_import[0].version)


def differences(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[str]:
    """Largest error of a logit, the same relative to the largest logit, and whether the same tokens stayed."""
    error = float(np.abs(after["logits"] - before["logits"]).max())
    same = all(np.array_equal(after[name], value) for name, value in before.items() if value.dtype.kind in "iu")
    return [f"{error:.1e}", f"{error / float(np.abs(before['logits']).max()):.1e}", "yes" if same else "NO"]


def table(header: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in [header, ["---"] * len(header), *rows]]


if __name__ == "__main__":
    main()
