"""Where a report was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...recipes.report.write import Written


def print_report(written: Written, console: Console) -> None:
    """Where a report is, how large, and what is not in it."""
    shown = f"{written.photos} photo{'' if written.photos == 1 else 's'}"
    lines = [f"Report: {written.page} ({written.bytes / 1000:.0f} kB, {shown}), data: {written.data}"]
    print_lines([*lines, *(f"Note: {words}" for words in written.notes)], console)
