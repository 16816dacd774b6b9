"""A listener that remembers."""

from __future__ import annotations


class Ears:
    """Keeps the notes that it hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, cached: bool = False) -> None:
        """Ignore."""

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Keep."""
        self.notes.append(text)
