"""Zero-TPrune against ToMe at equal GMACs: the rule, and what each part of it brings.

    python benchmarks/zero_tprune.py --data DATA
    python benchmarks/zero_tprune.py --data DATA --classes even --out even.md

DATA is described at the top of measure.py. The rule was chosen on photos of even classes; those of odd classes are what
is reported. Every row sees the same photos as the dense model, and differences are paired. Written to
benchmarks/results/zero_tprune_photos.md with the command.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from measure import MODELS, Row, budget_of, command, interval, load_model, tokens_of
from photos import run

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.answers import divergence
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.methods.zero_tprune import PAPER
from vitrim.exporter.pruning.shape import describe

CLASSES = {"even": 0, "odd": 1}
ROWS = (
    Row("ToMe in every block", "tome", final=False),
    Row("ToMe in every block but the last", "tome"),
    Row("Zero-TPrune, vitrim's rule", "zero_tprune"),
    Row("nothing handed over", "zero_tprune", (("hand_over", False),)),
    Row("importance not in S", "zero_tprune", (("exponent", 0.0),)),
    Row("the paper's steps, three stages (the former rule)", "zero_tprune", tuple(PAPER.items()), stages=3),
)


def paired(first: np.ndarray, second: np.ndarray, digits: int) -> str:
    """Mean difference with its 95 % interval."""
    low, high = interval(first - second)
    return f"{(first - second).mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--gmacs", "target", default=0.8095, show_default=True, help="Cost that no row passes.")
@click.option("--classes", default="odd", type=click.Choice(list(CLASSES)), show_default=True)
@click.option("--only", default=None, help="One of the models.")
@click.option("--rows", "wanted", multiple=True, help="Only rows whose title matches one of these, and the first.")
@click.option(
    "--out",
    default=Path("benchmarks/results/zero_tprune_photos.md"),
    type=click.Path(path_type=Path),
    show_default=True,
)
def main(data: Path, target: float, classes: str, only: str | None, wanted: tuple[str, ...], out: Path) -> None:
    """Measure and write the table."""
    lines = [f"`{command(data)}`", ""]
    rows = [row for row in ROWS if row is ROWS[0] or not wanted or any(re.search(part, row.title) for part in wanted)]
    for label in MODELS:
        if only in (None, label):
            lines += table(label, load_model(label, data), data, target * 1e9, classes, rows)
    atomic_write(out, "\n".join(lines))


def table(label: str, model: Any, data: Path, macs: float, classes: str, rows: list[Row]) -> list[str]:
    """One model's rows."""
    shape = describe(model)
    folder, offset = data / "imagenet_sample", CLASSES[classes]
    source = open_images(folder, preprocessing(model), classes=shape.classes, every=2, offset=offset, count=None)
    images = torch.from_numpy(read_all(source))
    dense = run(model, images, None)
    whole = model_macs(shape, dense_plan(shape)) / 1e9
    lines = [
        f"## {label}, {len(images)} photos of {classes} classes, dense {whole:.4f} GMACs",
        "",
        "| | GMACs + scoring | tokens | agreement % (95 %) | KL | top-1 % | agreement less ToMe's | KL less ToMe's |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    tome: tuple[np.ndarray, np.ndarray] | None = None
    for row in rows:
        budget = budget_of(shape, row, macs)
        logits = run(model, images, budget)
        seen, cost = fidelity(dense, logits, source.labels), budget.gmacs
        agrees, kl = 100.0 * (dense.argmax(1) == logits.argmax(1)), divergence(dense, logits)
        low, high = interval(agrees)
        tome = tome or (agrees, kl)
        lines.append(
            f"| {row.title} | {cost['pruned']:.4f} + {cost['scoring']:.4f} | {tokens_of(budget.stages)} "
            f"| {seen.agreement:.1%} ({low:.1f} to {high:.1f}) | {seen.kl:.4f} | {100 * seen.accuracy_pruned:.1f} "
            f"| {paired(agrees, tome[0], 1)} | {paired(kl, tome[1], 4)} |".replace("%", "", 1)
        )
        click.echo(lines[-1])
    return [*lines, ""]


if __name__ == "__main__":
    main()
