"""Where stages sit and what they remove when a recipe leaves it open: measured defaults, scaled to any depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .solve import Rule, check_blocks, default_blocks

if TYPE_CHECKING:
    from ..exporter.models import ViTShape

SIMILAR = 0.6
ITERATIONS = 5


def default_rule(
    shape: ViTShape,
    method: str,
    blocks: Sequence[int] | None,
    stages: int,
    similar: float | None,
    iterations: int | None,
) -> Rule:
    """The rule for a method; what a recipe gives wins.

    Raises:
        InputError: blocks or stages that the model has no room for.
    """
    chosen = check_blocks(blocks, shape.depth) if blocks else default_blocks(shape.depth, stages)
    if method != "zero_tprune":
        return Rule(chosen)
    share = SIMILAR if similar is None else similar
    return Rule(chosen, share, ITERATIONS if iterations is None else iterations)
