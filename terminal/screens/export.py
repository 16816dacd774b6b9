"""The end of an export on one screen: answers, parity, speed, and where the bundle is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .bench import print_bench
from .console import percent, percent_range, print_lines
from .parity import print_parity
from .plan import print_budget, print_widths

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.runtime.bench.choice import Choice
    from ...recipes.pipeline.exported import Exported


def print_export(done: Exported, console: Console) -> None:
    """The end of an export: accuracy, parity and speed on one screen."""
    from ...exporter.runtime.lines import engine_state

    if done.widths is not None:
        print_widths(done.widths, console)
    if done.budget is not None:
        print_budget(done.budget, console, done.bench)
    seen = done.fidelity
    table = Table(title=f"Answers on {seen.images} images", title_justify="left")
    for column in ("", "dense", "pruned", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    if seen.accuracy_dense is not None and seen.accuracy_pruned is not None:
        assert seen.accuracy_pruned_interval is not None
        accuracies = (percent(seen.accuracy_dense), percent(seen.accuracy_pruned))
        table.add_row("top-1", *accuracies, percent_range(seen.accuracy_pruned_interval))
    if seen.cosine is not None:
        table.add_row("cosine with dense", "", f"{seen.cosine:.5f}", "")
    if seen.tokens is not None:
        table.add_row("cosine of tokens", "", f"{seen.tokens:.5f}", "")
    agrees = "agrees with dense" if seen.task.by_image else "same nearest image"
    table.add_row(agrees, "", percent(seen.agreement), percent_range(seen.agreement_interval))
    console.print(table)
    if seen.on_calibration_images:
        console.print("These are the calibration images themselves: give more images, or an evaluate section.")
    print_parity(done.parity, console)
    if done.bench is None:
        from ...exporter.runtime.bench.report import LATER

        console.print(f"Speed: {LATER}", soft_wrap=True)
    else:
        print_bench(done.bench, console)
    if done.choice is not None:
        print_choice(done.choice, console)
    if done.precision is not None:
        from ...recipes.pipeline.readme import precision_words

        console.print(f"Precision: {precision_words(done.precision, seen)}", soft_wrap=True)
    print_lines([] if done.gate is None else done.gate.lines(), console)
    if done.sizes:
        print_sizes(done, console)
    console.print(f"Engine: {engine_state(done.parity, done.engine)}", soft_wrap=True)
    console.print(f"Bundle: {done.folder}")
    if done.report is not None or done.no_report is not None:
        console.print(f"Report: {done.report or done.no_report}", soft_wrap=True, markup=False)
    else:
        console.print(f"To look at it: vitrim report {done.folder} -o report.html", soft_wrap=True, markup=False)


def print_sizes(done: Exported, console: Console) -> None:
    """Every image size of a bundle of several; the first is its own, of which all the rest of the screen is."""
    from ...recipes.pipeline.readme import SIZE_COLUMNS, size_rows

    table = Table(title=f"Image sizes; all above is {done.size}", title_justify="left")
    for column in SIZE_COLUMNS:
        table.add_column(column, justify="left" if column in ("size", "parity") else "right")
    for row in size_rows({done.size: done, **done.sizes}):
        table.add_row(*row)
    console.print(table)


def print_choice(choice: Choice, console: Console) -> None:
    """What was tried, and what was kept."""
    from ...exporter.runtime.lines import counted

    threads = counted(choice.threads, "thread")
    table = Table(title=f"Tried on {choice.cpu}, {threads}, batch {choice.batch}", title_justify="left")
    for column in ("target", "precision", "answers kept", "median ms", "speed", ""):
        table.add_column(column, justify="left" if column in ("target", "precision", "") else "right")
    for row in choice.tried:
        if row.median is None or row.speed is None or row.agreement is None:
            table.add_row(row.target, row.precision, "-", "-", "-", row.refused)
            continue
        kept = (row.target, row.precision) == (choice.target, choice.precision)
        cells = (percent(row.agreement), f"{row.median:.2f}", f"{row.speed:.2f}", "kept" if kept else "")
        table.add_row(row.target, row.precision, *cells)
    console.print(table)
