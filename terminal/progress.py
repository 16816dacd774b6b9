"""What a person sees while a command runs: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..exporter.core.errors import visible

if TYPE_CHECKING:
    from ..recipes.listener import Listener


BEAT = 30.0  # seconds after which a stage that has said nothing says that it is still at work


class Plain:
    """Stages as plain lines on standard error; a long one says every now and then how far it is."""

    def __init__(self, beat: float = BEAT) -> None:
        self.began, self.beat = time.monotonic(), beat
        self._name, self._far, self._said = "", "", self.began
        self._lock, self._over = threading.Lock(), threading.Event()
        self._clock: threading.Thread | None = None

    def stage(self, name: str, cached: bool = False) -> None:
        """One line per stage."""
        with self._lock:
            self._name, self._far = "" if cached else visible(name), ""
            self._say(f"{visible(name)}{' (unchanged, skipped)' if cached else ''}")
        if self._clock is None and not cached:
            self._clock = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._clock.start()

    def progress(self, done: int, total: int) -> None:
        """Remembered for the next line: a log wants no bars."""
        self._far = f"{done} of {total}"

    def note(self, text: str) -> None:
        """One line."""
        click.echo(f"note: {visible(text)}", err=True)

    def finish(self) -> None:
        """Say nothing more."""
        self._over.set()
        if self._clock is not None:
            self._clock.join()

    def _watch(self) -> None:
        """Until the end: a line whenever the stage has said nothing for a while."""
        while not self._over.wait(max(0.01, self._said + self.beat - time.monotonic())):
            with self._lock:
                if time.monotonic() < self._said + self.beat or self._over.is_set():
                    continue
                if self._name:
                    self._say(f"{self._name}: {self._far or 'still at work'}")
                self._said = time.monotonic()

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        click.echo(f"[{self._said - self.began:6.1f} s] {text}", err=True)


class Bars:
    """Stages as progress bars on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self.bars, self.task = progress, TaskID(-1)

    def stage(self, name: str, cached: bool = False) -> None:
        """Finish the last bar and begin another."""
        self.finish()
        shown = escape(visible(name))
        label = f"{shown} [dim](unchanged)[/dim]" if cached else shown
        self.task = self.bars.add_task(label, total=1 if cached else None, completed=1 if cached else 0)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.task >= 0:
            self.bars.update(self.task, completed=done, total=total)

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.bars.console.print(Text.assemble(("note:", "yellow"), f" {visible(text)}"))

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
        from ..recipes.listener import Silence

        yield Silence()
        return
    if not sys.stderr.isatty():
        plain = Plain()
        try:
            yield plain
        finally:
            plain.finish()
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
