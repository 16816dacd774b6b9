"""What a person sees while a command runs: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from .recipes.pipeline.listener import Listener


class Plain:
    """Stages as plain lines on standard error."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def stage(self, name: str, cached: bool = False) -> None:
        """One line per stage."""
        click.echo(
            f"[{time.monotonic() - self.began:6.1f} s] {name}{' (unchanged, skipped)' if cached else ''}",
            err=True,
        )

    def progress(self, done: int, total: int) -> None:
        """Nothing: a log wants no bars."""

    def note(self, text: str) -> None:
        """One line."""
        click.echo(f"note: {text}", err=True)


class Bars:
    """Stages as progress bars on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self.bars, self.task = progress, TaskID(-1)

    def stage(self, name: str, cached: bool = False) -> None:
        """Finish the last bar and begin another."""
        self.finish()
        label = f"{name} [dim](unchanged)[/dim]" if cached else name
        self.task = self.bars.add_task(label, total=1 if cached else None, completed=1 if cached else 0)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.task >= 0:
            self.bars.update(self.task, completed=done, total=total)

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.bars.console.print(f"[yellow]note:[/yellow] {text}")

    def finish(self) -> None:
        """Fill the last bar and stop its clock."""
        if self.task >= 0:
            total = self.bars.tasks[self.task].total or 1
            self.bars.update(self.task, completed=total, total=total)
            self.bars.stop_task(self.task)


@contextmanager
def open_listener(silent: bool) -> Iterator[Listener]:
    """A listener for a pipeline: bars on a terminal, plain lines elsewhere, nothing when silent."""
    if silent:
        from .recipes.pipeline.listener import Silence

        yield Silence()
        return
    if not sys.stderr.isatty():
        yield Plain()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = Bars(progress)
        yield bars
        bars.finish()
