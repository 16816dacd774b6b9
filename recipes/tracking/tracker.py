"""A listener that tells a tracker too: how long stages took, and what the bundle holds in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ...exporter.core.errors import InputError, did_you_mean, excerpt
from ..listener import Listener
from .by_mlflow import MlflowTracker
from .by_wandb import WandbTracker
from .facts import Facts, facts_of


class Tracker(Protocol):
    """Keeps one run."""

    def metrics(self, values: dict[str, float]) -> None:
        """Keep numbers by name."""

    def facts(self, facts: Facts) -> None:
        """Keep what a bundle holds."""

    def end(self, error: BaseException | None) -> None:
        """The run is over; with the error where it failed."""


TRACKERS: dict[str, Callable[[], Tracker]] = {"mlflow": MlflowTracker, "wandb": WandbTracker}


class Tracked:
    """A listener that passes on what it hears, and tells a tracker.

    Args:
        listener: that is told, too.
        tracker: of this run.
        clock: in seconds.
    """

    def __init__(self, listener: Listener, tracker: Tracker, clock: Callable[[], float] = time.monotonic) -> None:
        self.listener, self.tracker, self.clock = listener, tracker, clock
        self._stage: tuple[str, float] | None = None

    def stage(self, name: str, cached: bool = False) -> None:
        """Pass on; the stage before is over."""
        self._over()
        self._stage = None if cached else (name, self.clock())
        self.listener.stage(name, cached)

    def progress(self, done: int, total: int) -> None:
        """Pass on."""
        self.listener.progress(done, total)

    def note(self, text: str) -> None:
        """Pass on."""
        self.listener.note(text)

    def published(self, folder: Path) -> None:
        """Keep what the bundle holds."""
        self._over()
        facts = facts_of(folder)
        self._tell(lambda: self.tracker.facts(facts))

    def _over(self) -> None:
        if self._stage is not None:
            name, began = self._stage
            took = {f"seconds.{'_'.join(name.split())}": self.clock() - began}
            self._tell(lambda: self.tracker.metrics(took))
        self._stage = None

    def _tell(self, tell: Callable[[], None]) -> None:
        """A tracker that is out of reach costs its entry, and no export."""
        try:
            tell()
        except Exception as error:
            self.listener.note(f"the tracker did not keep everything: {excerpt(str(error), 200)}")


@contextmanager
def tracked(name: str | None, listener: Listener) -> Iterator[Listener]:
    """A listener that also keeps the run in a tracker, which ends with the context.

    Args:
        name: `mlflow` or `wandb`, set up by their own environment variables; None: the listener alone.
        listener: that is told, too.

    Raises:
        InputError: there is no such tracker.
        EnvironmentLackError: its package is missing, or it cannot be reached.
    """
    if name is None:
        yield listener
        return
    if name not in TRACKERS:
        raise InputError(
            f"there is no tracker {name!r}{did_you_mean(name, TRACKERS)} (there are {', '.join(TRACKERS)})"
        )
    tracker = TRACKERS[name]()
    try:
        yield Tracked(listener, tracker)
    except BaseException as error:
        tracker.end(error)
        raise
    tracker.end(None)
