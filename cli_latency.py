"""A table of latencies, on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .exporter.core.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

    from .exporter.core.latency import LatencyTable


def print_table(found: LatencyTable, console: Console) -> None:
    """Milliseconds of the halves by tokens, then what a stage of each method adds, and what the table is of."""
    from .exporter.runtime.lines import counted

    of = found.of
    table = Table(title=f"{visible(of.model)}: milliseconds by tokens", title_justify="left")
    for column in ("tokens", *(f"attention, {form}" for form in found.forms), "mlp"):
        table.add_column(column, justify="right")
    for at, count in enumerate(found.counts):
        halves = [form.attention[at] for form in found.forms.values()]
        table.add_row(str(count), *(f"{one:.3f}" for one in (*halves, found.mlp[at])))
    console.print(table)
    for name, form in found.forms.items():
        stages = [f"{method} {cost.of(found.counts[-1]):.3f}" for method, cost in form.stages.items()]
        console.print(
            f"{name}: dense {form.dense:.3f} ms; a stage of all tokens adds {', '.join(stages) or 'nothing'}",
            soft_wrap=True,
        )
    console.print(
        f"On {visible(of.device)} by {of.runtime}, batch {of.batch}, {counted(of.threads, 'thread')}, {of.precision}; "
        f"medians of {found.processes} processes, whose quartiles lie {100 * found.spread:.1f} % apart",
        soft_wrap=True,
    )
