"""Agreement and divergence over GMACs: what frugal, PPT, ToMe and Zero-TPrune keep of two models at every cost.

    python benchmarks/frontier.py --data DATA

DATA is described at the top of measure.py. GMACs are those of the pruned model and of what its method adds; bands are
95 % bootstrap intervals over the photos. Written to benchmarks/results/frontier.md with the command, to frontier.json
and to frontier.png. Every answer is kept, so a stopped run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import (
    MODELS,
    QUICKSTART,
    Row,
    Subject,
    all_answers,
    budget_of,
    command,
    interval,
    open_subject,
    tokens_of,
)

from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.answers import divergence, same_top
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.budget import Budget

ROWS = (
    Row("frugal (vitrim)", "frugal"),
    Row("PPT", "ppt"),
    # Three stages, each of which can merge half of the patches, end at 0.62 GMACs.
    Row("PPT at 8 blocks", "ppt", blocks=tuple(range(3, 11))),
    Row("ToMe", "tome"),
    Row("Zero-TPrune, vitrim's rule (variant)", "zero_tprune"),
)
GMACS = (0.5, 0.55, 0.6, 0.7, 0.81, 0.9, 1.0)
SHOWN = 60  # percent of agreement from which on it is drawn; below it is of no use, and the table has it
# Okabe and Ito's colours, which the colour-blind tell apart, and a marker each.
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"))


@dataclass(frozen=True)
class Point:
    """What one method keeps at one cost; intervals are of 95 %.

    Attributes:
        method: title of its row.
        gmacs: of the pruned model and of what its method adds.
        tokens: after every stage, by block.
        agreement, agreement_interval: share of photos with the dense model's answer.
        kl, kl_interval: mean divergence from the dense model, in nats.
    """

    method: str
    gmacs: float
    tokens: str
    agreement: float
    agreement_interval: tuple[float, float]
    kl: float
    kl_interval: tuple[float, float]


def point(row: Row, budget: Budget, dense: np.ndarray, logits: np.ndarray) -> Point:
    """What logits [n, classes] keep of the dense model's."""
    agrees, apart = same_top(dense, logits).astype(float), divergence(dense, logits)
    return Point(
        row.title,
        budget.total_gmacs,
        tokens_of(budget.stages),
        float(agrees.mean()),
        interval(agrees),
        float(apart.mean()),
        interval(apart),
    )


def plans(subject: Subject, rows: Sequence[Row], costs: Sequence[float]) -> tuple[dict[Any, Budget], list[str]]:
    """Budgets by (row, GMACs), and a line for everyone that is out of reach."""
    found: dict[Any, Budget] = {}
    missing = []
    for row in rows:
        for cost in costs:
            try:
                found[row, cost] = budget_of(subject.shape, row, cost * 1e9)
            except InputError as error:
                missing.append(f"- {subject.label}, {row.title}, {cost:g} GMACs: {error}")
    return found, missing


def table(label: str, images: int, dense: float, points: Sequence[Point]) -> Iterator[str]:
    """The lines of one model's table."""
    yield f"## {label}, {images} photos, dense {dense:.4f} GMACs"
    yield ""
    yield "| method | GMACs | tokens | agreement % (95 %) | KL (95 %) |"
    yield "| --- " * 5 + "|"
    for each in points:
        (low, high), (least, most) = each.agreement_interval, each.kl_interval
        yield (
            f"| {each.method} | {each.gmacs:.4f} | {each.tokens} | {100 * each.agreement:.1f} ({100 * low:.1f} to "
            f"{100 * high:.1f}) | {each.kl:.4f} ({least:.4f} to {most:.4f}) |"
        )
    yield ""


def plot(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Agreement above, divergence below, a column a model; the dense model as a line and a point.

    Args:
        found: by model, `dense` GMACs and `points`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        2, len(found), figsize=(5.2 * len(found), 7.6), squeeze=False, sharex="col", sharey="row", layout="constrained"
    )
    for column, (label, model) in enumerate(found.items()):
        above, below = panels[0][column], panels[1][column]
        titles = list(dict.fromkeys(each.method for each in model["points"]))
        for title, (color, marker) in zip(titles, LOOKS, strict=False):
            line = sorted((each for each in model["points"] if each.method == title), key=lambda each: each.gmacs)
            costs = [each.gmacs for each in line]
            look = {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.6, "label": title}
            above.plot(costs, [100 * each.agreement for each in line], **look)
            below.plot(costs, [each.kl for each in line], **look)
            for panel, bounds, scale in (
                (above, [each.agreement_interval for each in line], 100),
                (below, [each.kl_interval for each in line], 1),
            ):
                lows, highs = ([scale * bound[end] for bound in bounds] for end in (0, 1))
                panel.fill_between(costs, lows, highs, color=color, alpha=0.13, linewidth=0)
        above.plot([model["dense"]], [100], "k*", markersize=11, clip_on=False, label="dense")
        above.axhline(100, color="black", linewidth=0.8, linestyle=":")
        for panel in (above, below):
            panel.axvline(model["dense"], color="black", linewidth=0.8, linestyle=":")
            panel.grid(alpha=0.3, which="both" if panel is below else "major", linewidth=0.5)
        above.set(title=f"{label}, {model['images']} photos")
        if above.get_ylim()[0] < SHOWN:
            above.set_ylim(SHOWN, 101.5)
        below.set(xlabel="GMACs, scoring and merging included", yscale="log")
    panels[0][0].set_ylabel(f"agreement with dense, % (from {SHOWN} on)")
    panels[1][0].set_ylabel("divergence from dense, nats (log)")
    panels[0][0].legend(loc="lower right", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


@click.command()
@click.option("--data", default=None, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--gmacs", "costs", multiple=True, type=float, default=GMACS, show_default=True, help="Costs to measure.")
@click.option("--only", default=None, help="One of quickstart, DeiT-Ti, ViT-Ti; by default the two with photos.")
@click.option("--photos", "count", default=None, type=int, help="How many photos; all by default.")
@click.option("--processes", default=2, show_default=True, help="Processes that measure answers, of one thread each.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--out", default=Path("benchmarks/results/frontier.md"), type=click.Path(path_type=Path), show_default=True
)
def main(
    data: Path | None,
    costs: tuple[float, ...],
    only: str | None,
    count: int | None,
    processes: int,
    cache: Path,
    out: Path,
) -> None:
    """Measure what is not measured yet, and write table, data and picture."""
    labels = [label for label in (QUICKSTART, *MODELS) if (label == only if only else label != QUICKSTART)]
    subjects = [open_subject(label, data, cache, count) for label in labels]
    chosen = {subject.label: plans(subject, ROWS, costs) for subject in subjects}
    wanted: dict[Any, tuple[Subject, Budget | None]] = {(subject.label, None): (subject, None) for subject in subjects}
    for subject in subjects:
        wanted |= {(subject.label, key): (subject, plan) for key, plan in chosen[subject.label][0].items()}
    logits = all_answers(wanted, data, cache, processes)
    lines, found = [f"`{command(data)}`", ""], {}
    for subject in subjects:
        budgets, missing = chosen[subject.label]
        dense = logits[subject.label, None]
        points = [point(row, plan, dense, logits[subject.label, (row, cost)]) for (row, cost), plan in budgets.items()]
        whole = model_macs(subject.shape, dense_plan(subject.shape)) / 1e9
        found[subject.label] = {"dense": whole, "images": len(dense), "points": points}
        lines += [*table(subject.label, len(dense), whole, points), *missing, *([""] if missing else [])]
    lines += ["GMACs: of the pruned model and of what its method adds. Intervals: bootstrap over the photos."]
    atomic_write(out, "\n".join(lines) + "\n")
    data_of = {label: model | {"points": [asdict(each) for each in model["points"]]} for label, model in found.items()}
    atomic_write(out.with_suffix(".json"), json.dumps(data_of, indent=1) + "\n")
    plot(out.with_suffix(".png"), found)
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
