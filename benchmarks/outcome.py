"""Targets by outcome: what a plan promises on the photos that it is decided on, and what it gives on others.

    python benchmarks/outcome.py --data DATA --agreement 0.97

DATA is described at the top of measure.py. Photos of even classes decide, those of odd ones judge. Written to
benchmarks/results/outcome.md with the command; plans and answers are PyTorch's, in float32.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
from measure import MODELS, command, load_model

import vitrim
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.outcome import MEASURES, outcome_of

HEADS = ("model", "asked", "promised (even classes)", "got (odd classes)", "verdict", "GMACs", "of dense", "plans", "s")


def row(label: str, data: Path, method: str, agreement: float, count: int | None) -> str:
    """One line of the table."""
    photos = {"path": str(data / "imagenet_sample"), "every": 2, "count": count}
    start = time.perf_counter()
    pruned = vitrim.prune(
        load_model(label, data),
        method,
        agreement=agreement,
        images={**photos, "offset": 0},
        evaluate={**photos, "offset": 1},
    )
    seconds, budget = time.perf_counter() - start, pruned.budget
    found = outcome_of(budget.statistics)
    assert found is not None
    assert found.judged is not None
    assert found.judged.apart
    measure = MEASURES[found.measure]
    for tried in found.tried:
        click.echo(f"{label}: {tried.gmacs:.3f} GMACs: {measure.told(tried.figure)}: {tried.holds}")
    cells = [
        label,
        measure.words(found.asked),
        f"{measure.told(found.promised)} on {found.images}",
        f"{measure.told(found.judged.figure)} on {found.judged.images}",
        found.verdict,
        f"{budget.total_gmacs:.3f}",
        f"{100 * budget.total_gmacs / budget.gmacs['dense']:.1f} %",
        f"{len(found.tried)}",
        f"{seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--agreement", "bounds", default=(0.97,), multiple=True, show_default=True, help="What is asked for.")
@click.option("--method", default="frugal", show_default=True)
@click.option("--only", default=None, help=f"One of {', '.join(MODELS)}.")
@click.option("--photos", "count", default=None, type=int, help="How many of each half; all by default.")
@click.option(
    "--out", default=Path("benchmarks/results/outcome.md"), type=click.Path(path_type=Path), show_default=True
)
def main(data: Path, bounds: tuple[float, ...], method: str, only: str | None, count: int | None, out: Path) -> None:
    """Solve and judge, and write the table."""
    labels = [label for label in MODELS if only in (None, label)]
    rows = [row(label, data, method, bound, count) for label in labels for bound in bounds]
    text = [
        f"`{command(data)}`",
        "",
        f"Method {method}. A plan is promised where its 95 % interval on the photos of even classes begins at what is",
        "asked; it is kept where the share on those of odd classes, which it has not seen, reaches it. GMACs count",
        "what choosing costs too. Seconds: of deciding and judging, on a busy machine, so only a hint.",
        "Where stages sit by default was tuned on photos of even classes (calibration/tokens/rules.py), which may",
        "flatter a promise.",
        "",
        f"| {' | '.join(HEADS)} |",
        "| --- " * len(HEADS) + "|",
        *rows,
    ]
    atomic_write(out, "\n".join(text) + "\n")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
