"""All methods at equal GMACs, or equally fast: agreement with dense, divergence, accuracy, and onnxruntime's times.

    python benchmarks/methods.py --data DATA --gmacs-ratio 0.646
    python benchmarks/methods.py --data DATA --threads 1 --batch 1 --speedup 1.40 --batch 8 --speedup 1.50 --out FILE

DATA is described at the top of measure.py; without it only the quickstart model is measured. GMACs are those of the
pruned model and of what its method adds. With --speedup, one for every --batch, each row gets the GMACs at which it
measures that fast, and there is a table a batch. Answers do not depend on the batch. They are measured in parallel
processes, latency alone and one after the other. Written to benchmarks/results/methods.md and methods.png with the
command.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    in_percent,
    load_model,
    open_subject,
    tokens_of,
)
from timing import Bench, matched_share, measured

from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.answers import divergence, same_top
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.zero_tprune import PAPER
from vitrim.exporter.runtime.machine.environment import environment

THIRDS = (3, 6, 9)
EARLY = (("place", "before_queries"),)
FIRST_FORM, SECOND_FORM = (tuple(form.items()) for form in get_method("frugal").before.values())
ROWS = (
    Row("frugal at 3 blocks (vitrim)", "frugal", blocks=(3, 5, 8)),
    Row("frugal at 4 blocks (vitrim)", "frugal", blocks=(3, 5, 7, 9)),
    Row("frugal at 8 blocks (vitrim)", "frugal", blocks=tuple(range(3, 11))),
    Row("frugal before the queries, at 4 blocks (vitrim)", "frugal", EARLY, blocks=(3, 5, 7, 9)),
    Row("frugal before the queries, at 8 blocks (vitrim)", "frugal", EARLY, blocks=tuple(range(3, 11))),
    Row("frugal, second form, at 4 blocks (vitrim)", "frugal", SECOND_FORM, blocks=(3, 5, 7, 9)),
    Row("frugal, first form, at 4 blocks (vitrim)", "frugal", FIRST_FORM, blocks=(3, 5, 7, 9)),
    Row("PPT", "ppt"),
    Row("PPT before the queries (variant)", "ppt", EARLY),
    Row("PPT, pooling only (variant)", "ppt", (("policy", "pool"),)),
    Row("PPT, pruning only (variant)", "ppt", (("policy", "prune"),)),
    Row("ToMe in every block but the last", "tome"),
    Row("ToMe before the queries, in every block but the last (variant)", "tome", EARLY),
    Row("ToMe in every block", "tome", final=False),
    Row("ToMe at 3 blocks", "tome", stages=3),
    Row("ToFu in every block but the last", "tofu"),
    Row("Zero-TPrune, vitrim's rule (variant)", "zero_tprune"),
    Row("Zero-TPrune's steps as published, at 3 blocks", "zero_tprune", tuple(PAPER.items()), blocks=THIRDS),
    Row("EViT, vitrim's rule", "evit"),
    Row("EViT", "evit", blocks=THIRDS),
    Row("EViT, fused token", "evit", (("fuse", True),), blocks=THIRDS),
    Row("ATS in fixed slots", "ats", blocks=THIRDS),
    Row("uniform", "uniform", blocks=THIRDS),
    Row("random", "random", blocks=THIRDS),
)
RIVAL = "ppt"  # all rows are held against the better of its rows without variants


@dataclass(frozen=True)
class Result:
    """One row of a table.

    Attributes:
        row: what was measured.
        budget: its plan.
        logits: [n, classes] of the pruned model.
        timed: latency by batch, see `timing.measured`; empty: not measured.
    """

    row: Row
    budget: Budget
    logits: np.ndarray
    timed: Mapping[int, dict[str, Any]]

    def agrees(self, dense: np.ndarray) -> np.ndarray:
        """1 for a photo whose answer is the dense model's, else 0: [n]."""
        return same_top(dense, self.logits).astype(float)


def table(title: str, dense: np.ndarray, labels: np.ndarray | None, results: Sequence[Result]) -> Iterator[str]:
    """The lines of one table, best agreement first; differences are paired.

    Args:
        title: of the model and the way to compare.
        dense: [n, classes] logits.
        labels: [n] class indices, where they are known.
    """
    agreeing = [result.agrees(dense) for result in results]
    order = np.argsort([-values.mean() for values in agreeing], kind="stable")
    rivals = [index for index in order if results[index].row.method == RIVAL and not results[index].row.parameters]
    right = None if labels is None else (dense.argmax(1) == labels).astype(float)
    batches = sorted({batch for result in results for batch in result.timed})
    yield f"## {title}, {len(dense)} images{'' if right is None else f', dense top-1 {100 * right.mean():.1f} %'}"
    yield ""
    if rivals:
        yield f"PPT is the row `{results[rivals[0]].row.title}`, the best of it. Intervals are of 95 %, paired."
        yield ""
    heads = ["method", "GMACs", "of which scoring, M", "tokens", "agreement % (95 %)", "less than the best, points"]
    heads += ["above PPT, points", "KL", "top-1 %", "above dense, points", "nodes"]
    heads += [f"{what}, batch {batch}" for batch in batches for what in ("speed-up", "95 %", "overhead")]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for index in order:
        result, values = results[index], agreeing[index]
        yield (
            "| "
            + " | ".join(
                [
                    result.row.title,
                    f"{result.budget.total_gmacs:.4f}",
                    f"{1e3 * result.budget.gmacs['scoring']:.1f}",
                    tokens_of(result.budget.stages),
                    in_percent(values),
                    in_percent(agreeing[order[0]] - values),
                    in_percent(values - agreeing[rivals[0]]) if rivals else "",
                    f"{divergence(dense, result.logits).mean():.4f}",
                    *accuracy_cells(result.logits, labels, right),
                    *timing_cells(result.timed, batches),
                ]
            )
            + " |"
        )
    yield ""


def accuracy_cells(logits: np.ndarray, labels: np.ndarray | None, right: np.ndarray | None) -> list[str]:
    """Top-1 accuracy in percent, and by how many points it is above the dense model's."""
    if labels is None or right is None:
        return ["", ""]
    found = (logits.argmax(1) == labels).astype(float)
    return [f"{100 * found.mean():.1f}", in_percent(found - right)]


def timing_cells(timed: Mapping[int, dict[str, Any]], batches: Sequence[int]) -> list[str]:
    """Nodes of the graph at the first batch, and speed-up with its interval and overhead at every one."""
    nodes = f"{timed[batches[0]]['nodes']}" if batches else ""
    cells: list[str] = []
    for batch in batches:
        found = timed[batch]
        low, high = found["speedup"]["interval"]
        cells += [f"{found['speedup']['median']:.3f}", f"{low:.3f} to {high:.3f}", f"{found['overhead']['median']:.3f}"]
    return [nodes, *cells]


def plot(path: Path, tables: Mapping[tuple[str, int], tuple[np.ndarray, Sequence[Result]]]) -> None:
    """Agreement over measured speed-up, one panel a model and batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels, batches = (list(dict.fromkeys(key[place] for key in tables)) for place in (0, 1))
    size = (5 * len(labels) + 3.5, 4.6 * len(batches))
    figure, panels = plt.subplots(len(batches), len(labels), figsize=size, squeeze=False, layout="constrained")
    numbers: dict[str, int] = {}
    for (label, batch), (dense, results) in tables.items():
        panel = panels[batches.index(batch)][labels.index(label)]
        points = [
            (
                result.timed[batch]["speedup"]["median"],
                100 * float(result.agrees(dense).mean()),
                numbers.setdefault(result.row.title, len(numbers) + 1),
            )
            for result in results
        ]
        draw(panel, points)
        panel.set(title=f"{label}, batch {batch}", xlabel="times as fast as dense (onnxruntime)")
        panel.set_ylabel("agreement with dense, %")
    legend = "\n".join(f"{number:2d}  {title}" for title, number in numbers.items())
    corner = panels[0][-1]
    corner.text(1.04, 1.0, legend, transform=corner.transAxes, va="top", fontsize=8, linespacing=1.7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw(panel: Any, points: Sequence[tuple[float, float, int]]) -> None:
    """Numbered points (x, y, number), and a line through those that no other beats in both."""
    front = sorted(p for p in points if not any(o[0] >= p[0] and o[1] >= p[1] and o[:2] != p[:2] for o in points))
    panel.plot([x for x, _, _ in front], [y for _, y, _ in front], color="#0b6e4f", zorder=1)
    best = {number for _, _, number in front}
    for x, y, number in points:
        color = "#0b6e4f" if number in best else "0.55"
        box = {"boxstyle": "circle,pad=0.25", "fc": color, "ec": "none"}
        panel.text(x, y, str(number), fontsize=8, ha="center", va="center", color="white", bbox=box)
    panel.set_xlim(min(x for x, _, _ in points) - 0.03, max(x for x, _, _ in points) + 0.03)
    spread = max(y for _, y, _ in points) - min(y for _, y, _ in points) or 1.0
    panel.set_ylim(min(y for _, y, _ in points) - 0.06 * spread, max(y for _, y, _ in points) + 0.06 * spread)
    panel.grid(alpha=0.3)


@dataclass(frozen=True)
class Run:
    """What one call measures with.

    Attributes:
        data: weights and photos.
        cache: folder of what is kept.
        folder: where graphs lie while they are timed.
        ratio: share of the dense GMACs for all rows, or to begin with.
        gmacs: instead, for the models with photos.
    """

    data: Path | None
    cache: Path
    folder: Path
    ratio: float
    gmacs: float | None

    def budget(self, subject: Subject, row: Row, share: float | None = None) -> Budget:
        """The row's budget at a share of the dense cost; None: at the one of the run."""
        dense = model_macs(subject.shape, dense_plan(subject.shape))
        given = self.gmacs * 1e9 if self.gmacs and subject.label != QUICKSTART else self.ratio * dense
        return budget_of(subject.shape, row, given if share is None else share * dense)

    def timed(self, subject: Subject, budget: Budget, bench: Bench) -> dict[str, Any]:
        """Latency with overhead; see `timing.measured`."""
        model = load_model(subject.label, self.data)
        return measured(model, subject.label, budget, bench, self.cache, self.folder)

    def as_fast(self, subject: Subject, row: Row, speedup: float, bench: Bench) -> Budget:
        """The row's budget at which it measures a speed-up."""
        model = load_model(subject.label, self.data)
        both = ("dense", "pruned")

        def measure(share: float) -> float:
            plan = self.budget(subject, row, share)
            found = measured(model, subject.label, plan, bench, self.cache, self.folder, both)["speedup"]["median"]
            click.echo(f"{subject.label}, batch {bench.batch}: {row.title}: {plan.total_gmacs:.4f} GMACs, {found:.3f}")
            return float(found)

        return self.budget(subject, row, matched_share(speedup, 1.15 / speedup - 0.13, measure))


@click.command()
@click.option("--data", default=None, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--gmacs-ratio", "ratio", default=0.646, show_default=True, help="Share of the dense GMACs for all rows.")
@click.option("--gmacs", default=None, type=float, help="GMACs for all rows, instead of the ratio; not the quickstart.")
@click.option("--batch", "batches", default=(1, 8), multiple=True, show_default=True, help="Of the latency.")
@click.option("--speedup", "speedups", multiple=True, type=float, help="Match rows by it, not by GMACs; one a batch.")
@click.option("--only", default=None, help="One of quickstart, DeiT-Ti, ViT-Ti.")
@click.option("--rows", "wanted", multiple=True, help="Only rows whose title matches one of these.")
@click.option("--photos", "count", default=None, type=int, help="How many photos; all by default.")
@click.option(
    "--rounds",
    default=60,
    show_default=True,
    help="Interleaved benchmark rounds a row, up to four times as many where they vary; 0 measures none.",
)
@click.option("--threads", default=None, type=int, help="Of onnxruntime; all cores by default.")
@click.option("--processes", default=2, show_default=True, help="Processes that measure answers, of one thread each.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--out", default=Path("benchmarks/results/methods.md"), type=click.Path(path_type=Path), show_default=True
)
def main(
    data: Path | None,
    ratio: float,
    gmacs: float | None,
    batches: tuple[int, ...],
    speedups: tuple[float, ...],
    only: str | None,
    wanted: tuple[str, ...],
    count: int | None,
    rounds: int,
    threads: int | None,
    processes: int,
    cache: Path,
    out: Path,
) -> None:
    """Measure what is not measured yet, and write table and plot."""
    if speedups and (len(speedups) != len(batches) or not rounds):
        raise click.UsageError(
            f"--speedup is given {len(speedups)} times, --batch {len(batches)} times; as many, please"
        )
    rows = [row for row in ROWS if not wanted or any(re.search(part, row.title) for part in wanted)]
    labels = [label for label in (QUICKSTART, *(MODELS if data else ())) if only in (None, label)]
    subjects = [open_subject(label, data, cache, count) for label in labels]
    benches = [Bench(batch, threads, rounds) for batch in batches] if rounds else []
    with tempfile.TemporaryDirectory() as folder:
        run = Run(data, cache, Path(folder), ratio, gmacs)
        lines, tables = (
            matched(run, subjects, rows, benches, speedups, processes)
            if speedups
            else equal(run, subjects, rows, benches, processes)
        )
    how = f"All rows at {gmacs or ratio} {'GMACs' if gmacs else 'of the dense GMACs'} at most"
    if speedups:
        how = "All rows at about the speed that stands above, each with the GMACs that this takes"
    machine = environment(threads)
    about = "GMACs: of the pruned model and of what its method adds. Speed-up over dense, overhead over free slicing"
    where = f"onnxruntime, fused attention, no decision outputs, {machine['cpu']}, {machine['threads']} threads"
    atomic_write(out, "\n".join([f"`{command(data)}`", "", *lines, f"{how}. {about}: {where}."]) + "\n")
    if tables:
        plot(out.with_suffix(".png"), tables)
    click.echo(f"wrote {out}")


Tables = dict[tuple[str, int], tuple[np.ndarray, Sequence[Result]]]


def equal(
    run: Run, subjects: Sequence[Subject], rows: Sequence[Row], benches: Sequence[Bench], processes: int
) -> tuple[list[str], Tables]:
    """A table for every model, all rows at the same GMACs."""
    plans = {(subject.label, row): run.budget(subject, row) for subject in subjects for row in rows}
    of = {subject.label: subject for subject in subjects}
    wanted = {(label, row): (of[label], plan) for (label, row), plan in plans.items()}
    logits = all_answers(wanted | {(s.label, None): (s, None) for s in subjects}, run.data, run.cache, processes)
    lines: list[str] = []
    tables: Tables = {}
    for subject in subjects:
        results, dense = [], logits[subject.label, None]
        for row in rows:
            plan = plans[subject.label, row]
            timed = {bench.batch: run.timed(subject, plan, bench) for bench in benches}
            results.append(Result(row, plan, logits[subject.label, row], timed))
            click.echo(f"{subject.label}: {row.title}")
        lines += table(subject.label, dense, subject.labels, results)
        tables |= {(subject.label, bench.batch): (dense, results) for bench in benches}
    return lines, tables


def matched(
    run: Run,
    subjects: Sequence[Subject],
    rows: Sequence[Row],
    benches: Sequence[Bench],
    speedups: Sequence[float],
    processes: int,
) -> tuple[list[str], Tables]:
    """A table for every model and batch, all rows equally fast."""
    lines: list[str] = []
    tables: Tables = {}
    for subject in subjects:
        for bench, speedup in zip(benches, speedups, strict=True):
            plans, missing = {}, []
            for row in rows:
                try:
                    plans[row] = run.as_fast(subject, row, speedup, bench)
                except InputError as error:
                    missing.append(f"Not there: {row.title}, as {error}.")
            timed = {row: {bench.batch: run.timed(subject, plan, bench)} for row, plan in plans.items()}
            wanted: dict[Row | None, tuple[Subject, Budget | None]] = {
                row: (subject, plan) for row, plan in plans.items()
            }
            logits = all_answers(wanted | {None: (subject, None)}, run.data, run.cache, processes)
            results = [Result(row, plan, logits[row], timed[row]) for row, plan in plans.items()]
            title = f"{subject.label}, batch {bench.batch}, {speedup:g} times as fast as dense"
            lines += [*table(title, logits[None], subject.labels, results), *missing]
            tables[subject.label, bench.batch] = logits[None], results
    return lines, tables


if __name__ == "__main__":
    main()
