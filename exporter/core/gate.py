"""What a recipe requires of a bundle, and whether it holds: measured figures against bounds, without a margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .outcome import AGREEMENT, MEASURES, TOP1_DROP, Figure
from .records import Record

AT_LEAST = {**{one.name: one.at_least for one in (AGREEMENT, TOP1_DROP)}, "speedup": True, "overhead": False}


@dataclass(frozen=True)
class Requirement(Record):
    """One key of `require`.

    Attributes:
        key: which.
        bound: what is required.
        found: what was measured; None where it could not be.
        why: why it could not be; empty where it was.
    """

    DERIVED = ("held",)

    key: str
    bound: float
    found: Figure | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if self.key not in AT_LEAST:
            raise ValueError(f"is of {self.key[:40]!r}, but there are {', '.join(AT_LEAST)}")

    @property
    def held(self) -> bool:
        """Whether it holds; what was not measured does not."""
        if self.found is None:
            return False
        return self.found.value >= self.bound if AT_LEAST[self.key] else self.found.value <= self.bound

    @property
    def told(self) -> str:
        """For a person: bound, figure and interval."""
        side = "at least" if AT_LEAST[self.key] else "at most"
        asked = f"{self.key} {side} {self.bound:g}"
        if self.found is None:
            return f"{asked}: cannot be judged here: {self.why}"
        if self.key in MEASURES:
            return f"{asked}: {MEASURES[self.key].told(self.found)}"
        low, high = self.found.ends
        return f"{asked}: {self.found.value:.3f} (95 % interval {low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Gate(Record):
    """Everything that a recipe requires."""

    DERIVED = ("passed",)

    requirements: tuple[Requirement, ...]

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        return all(one.held for one in self.requirements)

    @property
    def failure(self) -> str:
        """What does not hold, in one line."""
        return "; ".join(f"require.{one.told}" for one in self.requirements if not one.held)

    def lines(self) -> list[str]:
        """A line for each, for a person."""
        return [f"Required: {one.told}: {'held' if one.held else 'FAILED'}" for one in self.requirements]


def gate_of(required: Mapping[str, float], found: Mapping[str, Figure], why: Mapping[str, Any]) -> Gate:
    """Hold figures against what is required.

    Args:
        required: bounds, by key.
        found: what was measured, by key.
        why: of what was not, why not.
    """
    return Gate(
        tuple(Requirement(key, bound, found.get(key), str(why.get(key, ""))) for key, bound in required.items())
    )
