"""What calibration and slimming decided: tokens by block, heads and neurons by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.pruning.budget import Budget
    from ...exporter.pruning.widths import Widths
    from ...exporter.runtime.bench.report import Bench


def print_budget(budget: Budget, console: Console, bench: Bench | None = None) -> None:
    """A budget's stages and cost, and what was asked of its answers; `bench` is of its graphs."""
    from ...exporter.runtime.lines import outcome_lines

    cost = budget.gmacs
    title = f"{budget.model}: {budget.method}, {budget.total_gmacs:.3f} of {cost['dense']:.3f} GMACs"
    if "paper" in cost:
        title += f" (scoring {cost['scoring']:.3f}; as papers count, {cost['paper']:.3f})"
    table = Table(title=title, title_justify="left")
    for column in ("block", "tokens before", "after", "options"):
        table.add_column(column, justify="right" if column != "options" else "left")
    for row in budget.stages:
        options = ", ".join(f"{key} {value}" for key, value in row.options.items())
        table.add_row(str(row.block), str(row.before), str(row.after), options)
    console.print(table)
    print_lines(outcome_lines(budget.statistics, bench), console)


def print_widths(widths: Widths, console: Console) -> None:
    """What slimming kept of every block, and what it saves."""
    (dense, slimmed), (whole, left) = widths.costs["gmacs"], widths.costs["parameters"]
    share = f"{left / 1e6:.2f} of {whole / 1e6:.2f} million parameters"
    console.print(f"{widths.model}: slimmed to {slimmed:.3f} of {dense:.3f} GMACs, {share}")  # wider than the table
    table = Table()
    for column in ("block", "heads", "neurons"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for row in widths.blocks:
        heads = f"{len(row.heads)} of {row.heads_before}" if row.heads_before else "whole"
        neurons = f"{len(row.neurons)} of {row.neurons_before}"
        table.add_row(row.block, heads, neurons)
    console.print(table)
