"""Every method's graph on many photos: onnxruntime's logits and decisions against PyTorch's.

    python benchmarks/parity.py --data DATA --photos 400

DATA is described at the top of measure.py. An export proves its graph on some images (`parity.images`); here many
show how often two backends decide otherwise, how near the scores at the cut were where they did, and how far off the
numbers are where they decide alike, or where PyTorch follows onnxruntime's decisions. Written to
benchmarks/results/parity.md with the command; every row is kept, so a stopped run goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import (
    MODELS,
    QUICKSTART,
    Row,
    Subject,
    budget_of,
    command,
    kept_file,
    kept_json,
    load_model,
    open_subject,
    plan_of,
    tokens_of,
)

from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.parity import Rung
from vitrim.exporter.runtime.rungs import compare
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.schema.sections.outputs import ExportSection, ParitySection

HEADS = ("method", "tokens", "largest error", "mean error", "photos that decide otherwise", "first at", "largest gap")
BATCH = 8
FUSES = "ort-cpu"  # whose attention is fused
LIMITS = ParitySection()


def hold(model: Any, budget: Budget, images: np.ndarray, target: str, name: str) -> Rung:
    """onnxruntime's outputs of the rewritten graph against PyTorch's.

    Args:
        model: a supported timm model.
        budget: its plan.
        images: [n, channels, height, width] float32.
        target: whose graph it is.
        name: of the rung.
    """
    compares = ExportSection(target=target).compares
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged", "gap"), compares)
    graph, _ = rewrite(trace(pruned, BATCH), get_target(target), fused_attention=target == FUSES)
    torch_runner = TorchRunner(pruned, BATCH)
    expected, found = (
        run_all(runner, images, BATCH) for runner in (torch_runner, OrtRunner(graph.SerializeToString()))
    )

    def replay(chosen: np.ndarray, decisions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        one_by_one = TorchRunner(pruned, 1)
        kept = [{output: ids[row : row + 1] for output, ids in decisions.items()} for row in range(len(chosen))]
        rows = [one_by_one(images[index : index + 1], own)["logits"] for index, own in zip(chosen, kept, strict=True)]
        return {"logits": np.concatenate(rows)}

    return compare(name, expected, found, atol=LIMITS.atol, tie=LIMITS.tie, replay=replay)


def cells(rung: Rung, tokens: str) -> list[str]:
    """One row of the table."""
    parts = [part for part in (rung.equal, rung.replayed) if part]
    first = [stage for stage in rung.stages if stage.first_here]
    gaps = [stage.largest_gap for stage in first if stage.largest_gap is not None]
    return [
        rung.name if rung.passed else f"{rung.name} (fails: {rung.reason})",
        tokens,
        f"{rung.largest_error:.1e}" if parts else "",
        f"{max(part.mean_abs for part in parts):.1e}" if parts else "",
        str(sum(stage.first_here for stage in first)),
        " ".join(f"{stage.output}: {stage.first_here}" for stage in first),
        f"{max(gaps):.1e}" if gaps else "",
    ]


def measured(subject: Subject, data: Path | None, row: Row, ratio: float, target: str, cache: Path) -> list[str]:
    """One row of the table, kept by what it is of."""
    budget = budget_of(subject.shape, row, ratio * model_macs(subject.shape, dense_plan(subject.shape)))
    what = {"kind": "parity", "plan": plan_of(budget), "images": subject.images.stem, "target": target}

    def work() -> dict[str, Any]:
        rung = hold(load_model(subject.label, data), budget, np.load(subject.images), target, row.title)
        return {"cells": cells(rung, tokens_of(budget.stages))}

    found: list[str] = kept_json(kept_file(cache, ".json", **what), work)["cells"]
    return found


@click.command()
@click.option("--data", default=None, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--photos", "count", default=400, show_default=True, help="How many, spread over the odd classes.")
@click.option("--gmacs-ratio", "ratio", default=0.646, show_default=True, help="Share of the dense GMACs for all rows.")
@click.option("--only", default=None, help="One of quickstart, DeiT-Ti, ViT-Ti; by default all that there are.")
@click.option("--methods", multiple=True, type=click.Choice(list(METHODS)), help="Names.  [default: all]")
@click.option("--target", default="ort-cpu", show_default=True, help="Whose graph it is; onnxruntime must run it.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path), show_default=True)
@click.option("--out", default=Path("benchmarks/results/parity.md"), type=click.Path(path_type=Path), show_default=True)
def main(
    data: Path | None,
    count: int,
    ratio: float,
    only: str | None,
    methods: tuple[str, ...],
    target: str,
    cache: Path,
    out: Path,
) -> None:
    """Measure what is not measured yet, and write the table."""
    lines = [f"`{command(data)}`", ""]
    for label in (QUICKSTART, *(MODELS if data else ())):
        if only in (None, label):
            subject = open_subject(label, data, cache, count)
            images = len(np.load(subject.images, mmap_mode="r"))
            lines += [f"## {label}, {images} images", "", f"| {' | '.join(HEADS)} |", "| --- " * len(HEADS) + "|"]
            for name in methods or METHODS:
                row = Row(name, name)
                lines.append(f"| {' | '.join(measured(subject, data, row, ratio, target, cache))} |")
                click.echo(f"{label}: {lines[-1]}")
            lines.append("")
    lines += [
        f"Graphs for {target}, {'fused' if target == FUSES else 'decomposed'} attention, float32, batch {BATCH}, every "
        f"method by its rule at {ratio} of the dense GMACs. Errors are absolute, of logits, where both decide "
        "alike or PyTorch follows onnxruntime. "
        f"The gap is the relative distance of the scores at the cut; a near-tie is below {LIMITS.tie:g}."
    ]
    atomic_write(out, "\n".join(lines) + "\n")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
