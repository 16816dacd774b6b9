"""Where a command prints to: a console that takes names as they are, JSON, and how shares are written."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ...exporter.core.errors import visible
from ...exporter.core.records import finite


class _Plain(Console):
    """A console on which a text is what it says: no markup, no emoji, and no control characters of names in files."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`, which everything that is printed passes."""
        return super().render_str(visible(text), **options)


def console_for(stream: Any) -> Console:
    """A console that neither wraps nor colours where nobody looks at it."""
    return _Plain(file=stream, width=None if stream.isatty() else 120, highlight=False, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """Plain data on standard output."""
    click.echo(json.dumps(finite(data), indent=2, default=str, allow_nan=False))


def print_lines(lines: list[str], console: Console) -> None:
    """Lines that are not wrapped."""
    for line in lines:
        console.print(line, soft_wrap=True)


def percent(value: float) -> str:
    """A share for a person."""
    return f"{100 * value:.1f} %"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of a share for a person."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
