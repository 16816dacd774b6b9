"""What a plan says of its stages before their tokens are counted, and plans that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StagePlan:
    """One stage of a plan.

    How much it removes is said in one way at most: `patches`, `keep` or `remove`. A stage that says none of them is
    sized by a solver.

    Attributes:
        block: 0-based.
        patches: patches that stay.
        keep: share of the patches that stays, of those that `options` leave over.
        remove: patches that go, but no more than the method can remove at once.
        weight: how strongly a solver prunes here beside the other stages.
        similar: share of the removal that goes by similarity, where the method can split it.
        options: the method's own options of the stage.
    """

    block: int
    patches: int | None = None
    keep: float | None = None
    remove: int | None = None
    weight: float = 1.0
    similar: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse two ways of saying how much goes."""
        given = [name for name in ("patches", "keep", "remove") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"the stage at block {self.block} says {' and '.join(given)}; give one of them")


@dataclass(frozen=True)
class Preset:
    """A published or precursor configuration.

    Attributes:
        name: as `prune.preset` has it.
        method: name of the pruning method.
        about: what it is, in a line.
        stages: where it prunes and how much, for a model of 12 blocks.
        parameters: the method's parameters.
    """

    name: str
    method: str
    about: str
    stages: tuple[StagePlan, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
