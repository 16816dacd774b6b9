"""Who hears how far a pipeline is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable


class Listener(Protocol):
    """Hears what a pipeline does; the CLI draws it."""

    def stage(self, name: str, cached: bool = False) -> None:
        """A stage begins, or is skipped because nothing that it depends on has changed."""

    def progress(self, done: int, total: int) -> None:
        """How far the stage is."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@runtime_checkable
class Follower(Listener, Protocol):
    """A listener that also wants to know where the bundle lies."""

    def published(self, folder: Path) -> None:
        """A bundle is whole, and in its place."""


def tell_published(listener: Listener, folder: Path) -> None:
    """Tell a listener that follows bundles where one lies."""
    if isinstance(listener, Follower):
        listener.published(folder)


class Silence:
    """A listener that says nothing."""

    def stage(self, name: str, cached: bool = False) -> None:
        """Ignore."""

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
