"""Who hears how far a pipeline is."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Hears what a pipeline does; the CLI draws it."""

    def stage(self, name: str, cached: bool = False) -> None:
        """A stage begins, or is skipped because nothing that it depends on has changed."""

    def progress(self, done: int, total: int) -> None:
        """How far the stage is."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Silence:
    """A listener that says nothing."""

    def stage(self, name: str, cached: bool = False) -> None:
        """Ignore."""

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
