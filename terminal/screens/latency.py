"""A table of latencies, on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ...exporter.core.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.core.latency import LatencyTable
    from ...recipes.profile.run import ProfilePack


def print_table(found: LatencyTable, console: Console) -> None:
    """Milliseconds of the halves by tokens, then what a stage of each method adds, and what the table is of."""
    from ...exporter.runtime.lines import table_notes

    table = Table(title=f"{visible(found.of.model)}: milliseconds by tokens", title_justify="left")
    for column in ("tokens", *(f"attention, {form}" for form in found.forms), "mlp"):
        table.add_column(column, justify="right")
    for at, count in enumerate(found.counts):
        halves = [form.attention[at] for form in found.forms.values()]
        table.add_row(str(count), *(f"{one:.3f}" for one in (*halves, found.mlp[at])))
    console.print(table)
    for line in table_notes(found):
        console.print(line, soft_wrap=True)


def print_pack(found: ProfilePack, console: Console) -> None:
    """Where the folder is that makes a table on a device, and what to do with it."""
    console.print(
        f"wrote {visible(found.folder)}, {found.graphs} graphs for {found.target}. On the device:", soft_wrap=True
    )
    console.print(f"  python3 {visible(found.name)}/run_on_device.py table -o table.json", soft_wrap=True)
    console.print("and here, with the file that it writes: --set prune.target.table=table.json", soft_wrap=True)
