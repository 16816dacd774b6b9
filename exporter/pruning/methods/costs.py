"""What a stage multiplies beside the model's own layers, counted in parts that methods add up.

Counted are products of matrices, and lengths of vectors as products with themselves. Not counted, as in papers and as
for the model itself, is what goes element by element (softmax, scaling, powers), sums and means, comparisons, sorts and
gathers. The form that a CPU runs is counted; where all pairs are compared instead (`Evidence.compares`), more is
multiplied to save kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .selection import MergeRule


@dataclass(frozen=True)
class StageSizes:
    """The numbers of a stage that its cost depends on.

    Attributes:
        before: tokens that enter it.
        after: tokens that leave it, prefix and fused ones included.
        prefix: prefix tokens at the front, never removed.
        heads: of its block.
        head_dim: of its block.
        width: of a token.
        class_token: whether token 0 is a class token.
        block: (0-based block, blocks of the model).
    """

    before: int
    after: int
    prefix: int
    heads: int
    head_dim: int
    width: int
    class_token: bool = True
    block: tuple[int, int] = (0, 1)

    @property
    def patches(self) -> int:
        """That enter the stage."""
        return self.before - self.prefix

    @property
    def removed(self) -> int:
        """Tokens fewer after the stage."""
        return self.before - self.after


def first_row(stage: StageSizes) -> int:
    """The class token's row of attention, which the fused attention of the block does not hand out.

    A model without a class token hands out the whole matrix, which it multiplies only once.
    """
    return stage.heads * stage.head_dim * stage.before if stage.class_token else 0


def significance(stage: StageSizes) -> int:
    """Class attention times value norm, see `Evidence.significance`."""
    return first_row(stage) + stage.before * stage.heads * stage.head_dim


def matching(stage: StageSizes, dim: int | None = None) -> int:
    """Lengths of what is compared, and the products of groups A and B, see `matching.match_tokens`.

    Args:
        stage: its sizes.
        dim: of what is compared; None: keys averaged over heads.
    """
    first, odd = stage.prefix + stage.prefix % 2, stage.prefix + 1 - stage.prefix % 2
    pairs = len(range(first, stage.before, 2)) * len(range(odd, stage.before, 2))
    return (stage.before + pairs) * (dim or stage.head_dim)


def absorbing(stage: StageSizes, dim: int) -> int:
    """The products of all pairs, see `absorption.absorb`."""
    return stage.before**2 * dim


def merging(stage: StageSizes, rule: MergeRule | None) -> int:
    """The product that adds what merges to what stays, see `reduce.reduce`; lengths, too, where they are kept."""
    if rule is None or rule == "count":  # sums of sizes
        return 0
    lengths = {"mean": 0, "as_long": 2 * stage.after, "longest": stage.removed + 2 * stage.after}[rule]
    return (stage.after * stage.removed + lengths) * stage.width


def fusing(stage: StageSizes) -> int:
    """The sum that is one more token, see `Selection.fused`."""
    return stage.before * stage.width
