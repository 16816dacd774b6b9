"""Small files in which the kernel reports one thing each: a word, or a number."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """What a file holds, without white space at its ends; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """The number that a file holds; None where it cannot be read or holds none."""
    try:
        return float(read_text(path) or "")
    except ValueError:
        return None
