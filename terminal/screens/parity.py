"""The ladder of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import percent, print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.runtime.parity import Parity


def print_parity(parity: Parity, console: Console) -> None:
    """The ladder, a line per rung; and the engine, where one was built."""
    from ...exporter.core.answers import LOGITS
    from ...exporter.runtime.lines import parity_notes

    held = f"atol {parity.atol:g}"
    if parity.close:
        held = f"cosine {parity.close.cosine:g}, agreement {parity.close.agreement:.0%}"
    table = Table(title=f"Parity: {'passed' if parity.passed else 'FAILED'} ({held})", title_justify="left")
    same = next((rung.task.short for rung in parity.rungs), LOGITS.short)
    for column in ("rung", "images", "same tokens", "largest error", same, ""):
        table.add_column(column, justify="left" if column in ("rung", "") else "right")
    for rung in parity.rungs:
        table.add_row(
            rung.name,
            str(rung.images),
            "-" if rung.same_images is None else percent(rung.same_images),
            rung.describe_error(),
            percent(rung.top1),
            "ok" if rung.passed else f"FAILED at {rung.first_offender}",
        )
    console.print(table)
    print_lines(parity_notes(parity), console)
