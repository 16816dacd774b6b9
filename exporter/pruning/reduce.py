"""What a stage does to the sequence: tokens stay, merge, go or fuse, by gathers and small products, no scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.layout import PACKED
from .methods.selection import Selection
from .rows import rows_of

MASKED = 1e4  # taken from a logit, it leaves exactly 0 of a softmax, and float16 can hold it


def reduce(x: Tensor, sizes: Tensor | None, selection: Selection) -> tuple[Tensor, Tensor | None]:
    """Merge, drop and fuse tokens as a selection of kept positions says.

    A mean weighs tokens by their sizes, and sizes add up, unless the merge says otherwise, see `Weighing`.

    Args:
        x: [batch, tokens, width].
        sizes: [batch, tokens], how many patches each token stands for; None: one each.

    Returns:
        [batch, tokens that stay, width], and their sizes [batch, tokens that stay] (None: one each).
    """
    assert selection.kept is not None
    if selection.place is not None:
        return _moved(x, sizes, selection)
    out = rows_of(x, selection.kept)
    left = None if sizes is None else sizes.gather(1, selection.kept)
    merge = selection.merge
    if merge is not None:
        targets = torch.arange(selection.kept.shape[1], device=x.device).view(1, -1, 1)
        target = merge.target if merge.active is None else torch.where(merge.active.unsqueeze(1), merge.target, -1)
        into = (target.unsqueeze(1) == targets).to(x.dtype)  # [batch, kept, merged], at most one 1 per column
        more = None if sizes is None else sizes.gather(1, merge.source)
        if merge.rule == "count":
            return out, _counted(left, into, more)
        moved = rows_of(x, merge.source)
        if merge.rule == "longest":
            total = out + into @ moved
            out = _as_long(total, torch.maximum(_longest(into, moved), out.norm(dim=-1, keepdim=True)))
        else:
            weighing = merge.weighing
            mine, others = (
                None if weighing.worth is None else weighing.worth.gather(1, places)
                for places in (selection.kept, merge.source)
            )
            own, other = weighing.mass(left, mine), weighing.mass(more, others)
            heavy = into if other is None else into * other.unsqueeze(1)
            alone = 1.0 if own is None else own.unsqueeze(-1)
            # Shares are taken on the small matrix, so that only one product and one sum are as wide as the tokens.
            total = alone + heavy.sum(-1, keepdim=True)
            mean = out * (alone / total) + (heavy / total) @ moved
            out = _as_long(mean, out.norm(dim=-1, keepdim=True)) if merge.rule == "as_long" else mean
            if weighing.is_plain:
                left = total.squeeze(-1)
            else:
                left = _counted(left, into, weighing.handed(more, others), weighing.shares(mine))
    if selection.fused is not None:
        out = torch.cat([out, selection.fused.unsqueeze(1) @ x], dim=1)
    return out, left


def _summed(into: Tensor, values: Tensor | None) -> Tensor:
    """Sums [batch, kept] of what merges into tokens, by [batch, kept, merged] of 0 and 1; without values, numbers."""
    return (into if values is None else into * values.unsqueeze(1)).sum(-1)


def _counted(own: Tensor | None, into: Tensor, more: Tensor | None, shares: Tensor | None = None) -> Tensor:
    """Sizes [batch, kept] of tokens and of what merges into them, see `_summed` and `Weighing.shares`."""
    handed = _summed(into, more)
    return (1.0 if own is None else own) + (handed if shares is None else handed / shares)


def _moved(x: Tensor, sizes: Tensor | None, selection: Selection) -> tuple[Tensor, Tensor | None]:
    """Tokens brought to their places, and merged there, by one product; see `reduce`."""
    place, kept, merge = selection.place, selection.kept, selection.merge
    assert place is not None
    assert kept is not None
    assert merge is not None
    front = x.shape[1] - place.shape[1]  # tokens that stay where they are
    first, x = x[:, :front], x[:, front:]
    targets = torch.arange(kept.shape[1], device=x.device).to(place.dtype)
    alone = (targets < front).view(1, -1, 1)
    into = (place.unsqueeze(1) == targets.view(1, -1, 1)).to(x.dtype)
    if merge.rule == "longest":
        total = into @ x
        out = _as_long(total, _longest(into, x))
        left = None if sizes is None else sizes.gather(1, kept)
    else:
        weighing = merge.weighing
        (own, mine), (size, worth) = (
            [None if values is None else values[:, part] for values in (sizes, weighing.worth)]
            for part in (slice(front), slice(front, None))
        )
        mass = weighing.mass(size, worth)
        heavy = into if mass is None else into * mass.unsqueeze(1)
        total = _alone(heavy.sum(-1, keepdim=True), alone, weighing.mass(own, mine), front)
        out, left = (heavy / total) @ x, total.squeeze(-1)
        if merge.rule == "as_long":
            assert selection.stays is not None
            out = _as_long(out, (into * selection.stays.unsqueeze(1)) @ x.norm(dim=-1, keepdim=True))
        if not weighing.is_plain:
            summed, shares = _summed(into, weighing.handed(size, worth)), weighing.shares(worth)
            if shares is not None:
                assert selection.stays is not None
                summed = summed / _summed(into, shares * selection.stays).clamp_min(1e-12)  # none go to those in front
            left = _alone(summed.unsqueeze(-1), alone, own, front).squeeze(-1)
    # What is chosen between, and not joined, is read where it lies.
    return (torch.where(alone, first, out) if front else out), left


def _alone(total: Tensor, alone: Tensor, own: Tensor | None, front: int) -> Tensor:
    """Totals [batch, kept, 1]; those of tokens in front that are alone are their own (None: 1)."""
    return torch.where(alone, 1.0 if own is None else own.unsqueeze(1), total) if front else total


def _longest(into: Tensor, x: Tensor) -> Tensor:
    """Length of the longest part [batch, kept, 1] of those that go into a token, by a matrix of 0 and 1."""
    return (into * x.norm(dim=-1).unsqueeze(1)).amax(-1, keepdim=True)


def _as_long(x: Tensor, length: Tensor) -> Tensor:
    """Tokens in their own direction and with a given length (MLERP)."""
    return x * (length / x.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def first_of_each(ids: Tensor, dtype: torch.dtype) -> Tensor:
    """[batch, tokens] of 1, and 0 for a token that stands beside itself: of a token kept twice the first counts."""
    first = torch.ones_like(ids[:, :1], dtype=torch.bool)
    return torch.cat([first, ids[:, 1:] != ids[:, :-1]], dim=1).to(dtype)


def pack(source: Tensor, target: Tensor) -> Tensor:
    """A merge as one number: `65536 * source id + target id`, which int32 holds for up to 32767 tokens."""
    return source * PACKED + target


def merged_pairs(ids: Tensor, selection: Selection) -> Tensor | None:
    """A selection's merges [batch, merged], packed in ids of the whole sequence; -1 where an image merges nothing.

    Args:
        ids: [batch, tokens] int64, of the tokens before the stage.
    """
    merge = selection.merge
    if merge is None:
        return None
    assert selection.kept is not None
    pairs = pack(ids.gather(1, merge.source), ids.gather(1, selection.kept.gather(1, merge.target)))
    return pairs if merge.active is None else torch.where(merge.active.unsqueeze(1), pairs, -1)
