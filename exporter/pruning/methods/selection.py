"""What a stage answers: which tokens stay, and what becomes of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

MergeRule = Literal["mean", "as_long", "longest", "count"]


def power(values: Tensor, exponent: float) -> Tensor:
    """Values to a power; as they are to the first, which would be a node."""
    return values if exponent == 1 else values**exponent


def _powered(worth: Tensor | None, exponent: float) -> Tensor | None:
    return power(worth, exponent) if worth is not None and exponent else None


def _product(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Of two factors, of which None is 1."""
    return other if one is None else one if other is None else one * other


class Weighing(NamedTuple):
    """What tokens count where they merge.

    Attributes:
        worth: [batch, tokens], above 0, what the tokens before the merge are worth; None: nothing is known of it.
        weight: exponent of their worth by which they count in the mean; 0: not by worth.
        sized: whether they count by their sizes, too.
        share: exponent of a token's worth, over that of the one it goes into, by which it hands on its size; 0: all
            of it.
    """

    worth: Tensor | None = None
    weight: float = 0.0
    sized: bool = True
    share: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether sizes are all that counts."""
        return self.sized and not self.weight and not self.share

    def mass(self, sizes: Tensor | None, worth: Tensor | None) -> Tensor | None:
        """What some tokens count in a mean, by their sizes and worth (None: one each)."""
        return _product(sizes if self.sized else None, _powered(worth, self.weight))

    def shares(self, worth: Tensor | None) -> Tensor | None:
        """What some tokens hand on of their sizes, times the same of the ones they go into (None: all of it)."""
        return _powered(worth, self.share)

    def handed(self, sizes: Tensor | None, worth: Tensor | None) -> Tensor | None:
        """The sizes that some tokens hand on (None: one each), see `shares`."""
        return _product(sizes, self.shares(worth))


BY_SIZE = Weighing()


@dataclass(frozen=True)
class Merge:
    """Tokens that do not stay but live on in ones that do.

    Attributes:
        source: [batch, merged] int64 positions in the current sequence.
        target: [batch, merged] int64 positions among the kept tokens.
        rule: `mean` averages; `as_long` gives the mean's direction the length of the kept token; `longest` that of the
            longest (MLERP), and keeps no sizes; `count` leaves the kept token as it is, which only counts for more.
        active: [batch] bool, images that merge; the others drop the sources. None: all merge.
        weighing: what tokens count in a mean, and how they hand on their sizes; `longest` and `count` have none.
    """

    source: Tensor
    target: Tensor
    rule: MergeRule = "mean"
    active: Tensor | None = None
    weighing: Weighing = BY_SIZE


@dataclass(frozen=True)
class Selection:
    """Which tokens stay, and what becomes of the others.

    Attributes:
        kept: [batch, keep] int64 positions in the current sequence, prefix tokens first, see `Method.orders`. None
            stands for the first tokens, which a slice takes without a gather.
        gap: [batch] float32, the smallest relative distance between two scores on either side of a cut; below
            about 1e-5 two backends may rightly decide differently. None where nothing was compared.
        merge: what is merged into the kept tokens; None: the others are dropped.
        fused: [batch, tokens] weights of one more token, appended last; None: there is none.
        place: where tokens go, for a stage that merges by one product instead of gathers, see `moves.Moves.place`;
            `kept` and `merge` then only tell it. None: `kept` and `merge` say where they go.
        stays: [batch, tokens - front] bool, beside `place`, see `moves.Moves.stays`.
    """

    kept: Tensor | None
    gap: Tensor | None = None
    merge: Merge | None = None
    fused: Tensor | None = None
    place: Tensor | None = None
    stays: Tensor | None = None
