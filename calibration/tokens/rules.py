"""Where stages sit and what they remove when a recipe leaves it open.

Found by Monte-Carlo search over placements, sizes and parameters on the even-class photos for DeiT-Ti and ViT-Ti at
once, judged by the divergence from the dense outputs, and confirmed on the odd ones (benchmarks/README.md): three
stages between attention and MLP at a quarter, a half and five sixths of the depth, the first ones by similarity alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import InputError
from .solve import Rule, check_blocks

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

# By number of stages: (share of the depth, weight of the removal, share of the removal that goes by similarity).
PLACES: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.25, 1.0, 1.0),),
    2: ((0.25, 1.25, 1.0), (0.6, 1.0, 0.8)),
    3: ((0.25, 1.25, 1.0), (0.5, 1.0, 1.0), (5 / 6, 0.8, 0.3)),
    4: ((0.2, 1.0, 1.0), (0.4, 1.0, 1.0), (0.6, 1.0, 0.6), (5 / 6, 0.8, 0.3)),
}

# Methods whose stages remove equal numbers of tokens, and where their papers put them; None: in every block.
BY_COUNT: dict[str, tuple[float, ...] | None] = {
    "ppt": (0.25, 0.5, 0.75),
    "tome": None,
    "tofu": None,
    "frugal": (3 / 12, 5 / 12, 7 / 12, 9 / 12),  # eight blocks lose little less and cost twice the nodes
}


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
        stages: how many to place otherwise, 1 to 4; None: 3, or as many as the method's paper has.
        similar: share of every stage's removal that goes by similarity.
        iterations: PageRank iterations of every stage; more than one changed no answer on the photos, and each costs
            time.
        final: drop all patches before the last block's MLP, where only prefix tokens are classified.

    Raises:
        InputError: blocks or stages that the model has no room for.
    """
    free = final and shape.prefix_pooled and shape.prefix_tokens > 0 and parameters.get("place") != "after_block"
    last = shape.depth - 1
    counts = method in BY_COUNT
    if blocks is None and stages is None and method in BY_COUNT:
        shares = BY_COUNT[method]
        blocks = range(shape.depth) if shares is None else sorted({int(share * shape.depth + 1e-9) for share in shares})
        blocks = [block for block in blocks if not (free and block == last)]
    if blocks:
        chosen = check_blocks(blocks, shape.depth)
        free = free and last not in chosen
        places = [(0.0, 1.0, 0.6)] * len(chosen)
    else:
        places = list(PLACES[stages or 3])
        if counts:
            places = [(share, 1.0, similar_share) for share, _, similar_share in places]
        room = shape.depth - (1 if free else 0)
        chosen = tuple(int(share * shape.depth + 1e-9) for share, _, _ in places)
        chosen = tuple(min(block, room - len(chosen) + index) for index, block in enumerate(chosen))
        if len(set(chosen)) < len(chosen) or chosen[0] < 0:
            raise InputError(f"prune.stages is {stages}, but a model of {shape.depth} blocks has no room for that many")
    similarity = [share if similar is None else similar for _, _, share in places]
    weights = tuple(weight for _, weight, _ in places)
    return Rule(chosen, weights, tuple(similarity), iterations or 1, free, "counts" if counts else "rates")
