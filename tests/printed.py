"""What a command prints at its end, as text."""

from __future__ import annotations

import io
from typing import Any

from vitrim.terminal.screens.console import console_for


def rows_of(page: str) -> list[list[str]]:
    """Cells of all tables of a page, without the lines between them."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.splitlines() if "│" in line]


def printed(draw: Any, *results: Any) -> str:
    """What a function prints where there is no terminal."""
    stream = io.StringIO()
    draw(*results, console_for(stream))
    return stream.getvalue()
