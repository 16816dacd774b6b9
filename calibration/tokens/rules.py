"""Where stages sit and what they remove when a recipe leaves it open.

Found by Monte-Carlo search over placements, sizes and parameters on the even-class photos for DeiT-Ti and ViT-Ti at
once, judged by the divergence from the dense outputs, and confirmed on the odd ones (benchmarks/README.md): three
stages between attention and MLP at a quarter, a half and five sixths of the depth, the first ones by similarity alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import InputError
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.base import Method
from ...exporter.pruning.plan import StagePlan

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

# By number of stages: (share of the depth, weight of the removal, share of the removal that goes by similarity).
PLACES: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.25, 1.0, 1.0),),
    2: ((0.25, 1.25, 1.0), (0.6, 1.0, 0.8)),
    3: ((0.25, 1.25, 1.0), (0.5, 1.0, 1.0), (5 / 6, 0.8, 0.3)),
    4: ((0.2, 1.0, 1.0), (0.4, 1.0, 1.0), (0.6, 1.0, 0.6), (5 / 6, 0.8, 0.3)),
}
GIVEN_SIMILAR = 0.6  # share by similarity where a recipe or a method names the blocks


@dataclass(frozen=True)
class Rule:
    """How a plan is filled where a recipe leaves it open.

    Attributes:
        stages: that choose patches, by block, not yet sized: a stage of weight w keeps `rate ** w` of its patches for a
            common rate, or, of a method whose stages are sized by counts, removes w times a common number.
        iterations: rounds of scoring of every stage; None takes the method's default.
        final: whether the last block drops all patches before its MLP, which is free where only prefix tokens are
            classified.
    """

    stages: tuple[StagePlan, ...]
    iterations: int | None = None
    final: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of the stages that choose patches."""
        return tuple(stage.block for stage in self.stages)

    def sized(self, method: Method, depth: int, whole: int, kept: Sequence[int]) -> list[StagePlan]:
        """The stages with their sizes and the method's options, the final one included.

        Args:
            depth: blocks of the model.
            whole: patches before the first stage.
            kept: patches after each stage.
        """
        sized = [
            replace(stage, patches=after, options=method.stage_options(patches, after, stage.similar, self.iterations))
            for stage, patches, after in zip(self.stages, [whole, *kept[:-1]], kept, strict=True)
        ]
        return [*sized, StagePlan(depth - 1, patches=0)] if self.final else sized


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """Stage blocks in order.

    Raises:
        InputError: repeated, or not in the model.
    """
    if len(set(blocks)) != len(blocks) or not all(0 <= block < depth for block in blocks):
        raise InputError(f"prune.blocks is {list(blocks)}: name different blocks from 0 to {depth - 1}")
    return tuple(sorted(blocks))


def default_rule(
    shape: ViTShape,
    method: str,
    parameters: dict[str, Any],
    *,
    blocks: Sequence[int] | None = None,
    stages: int | None = None,
    similar: float | None = None,
    iterations: int | None = None,
    final: bool = True,
) -> Rule:
    """The rule for a method; what a recipe gives wins.

    Args:
        shape: the model.
        method: the pruning method.
        parameters: its parameters; only `place` matters here.
        blocks: the recipe's own stages, all of weight 1.
        stages: how many to place otherwise, 1 to 4; None: 3, or as many as the method says.
        similar: share of every stage's removal that goes by similarity.
        iterations: rounds of scoring of every stage; more than one changed no answer on the photos, and each costs
            time.
        final: drop all patches before the last block's MLP, where only prefix tokens are classified.

    Raises:
        InputError: blocks or stages that the model has no room for.
    """
    free = final and shape.prefix_pooled and shape.prefix_tokens > 0 and parameters.get("place") != "after_block"
    last, placement = shape.depth - 1, get_method(method).placement
    own = placement.blocks(shape.depth) if blocks is None and stages is None else None
    if own is not None:
        blocks = [block for block in own if not (free and block == last)]
    if blocks:
        chosen = check_blocks(blocks, shape.depth)
        free = free and last not in chosen
        share = GIVEN_SIMILAR if placement.similar is None else placement.similar
        planned = [StagePlan(block, similar=share) for block in chosen]
    else:
        planned = _placed(shape.depth, stages or 3, free)
        if placement.sized_by == "counts":
            planned = [replace(stage, weight=1.0) for stage in planned]
    if similar is not None:
        planned = [replace(stage, similar=similar) for stage in planned]
    return Rule(tuple(planned), iterations or 1, free)


def _placed(depth: int, stages: int, final: bool) -> list[StagePlan]:
    """So many stages at the shares of the depth that were found best, before a final one."""
    room = depth - (1 if final else 0)
    blocks = [int(share * depth + 1e-9) for share, _, _ in PLACES[stages]]
    blocks = [min(block, room - stages + index) for index, block in enumerate(blocks)]
    if len(set(blocks)) < stages or blocks[0] < 0:
        less = f"give prune.stages: {room}" if 0 < room < stages else "take a deeper model"
        raise InputError(f"a model of {depth} blocks has no room for {stages} pruning stages; {less}")
    return [
        StagePlan(block, weight=weight, similar=similar)
        for block, (_, weight, similar) in zip(blocks, PLACES[stages], strict=True)
    ]
