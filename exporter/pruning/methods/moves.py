"""ToMe's matching and its merges by comparing all pairs of tokens: no sort and no gather, so few kernels on a GPU.

What merges into what is the same as by `matching.match_tokens`; of equal values the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .selection import BY_SIZE, Merge, MergeRule, Selection, Weighing

LEAST = -1e30  # below every value, and a float32


@dataclass(frozen=True)
class Moves:
    """Where tokens go.

    Attributes:
        place: [batch, tokens - front] whole numbers in floating point: the position among the tokens that stay that a
            token goes to, its own or that of the one it merges into; -1: it is dropped.
        stays: [batch, tokens - front] bool, tokens whose own position that is.
        front: leading tokens that are left out, see `left_out`.
    """

    place: Tensor
    stays: Tensor
    front: int

    def selection(
        self,
        keep: int,
        gap: Tensor,
        rule: MergeRule | None,
        active: Tensor | None = None,
        weighing: Weighing = BY_SIZE,
    ) -> Selection:
        """As a stage's answer, with its decisions as positions.

        Args:
            keep: tokens after the stage.
            gap: see `Selection.gap`.
            rule: how tokens merge; None: all that do not stay are dropped.
            active, weighing: see `Merge`.
        """
        place, front = self.place, self.front
        count = place.shape[1]
        tokens = torch.arange(count, device=place.device).to(place.dtype)
        targets = torch.arange(front, keep, device=place.device).to(place.dtype)
        own = (place.unsqueeze(1) == targets.view(1, -1, 1)) & self.stays.unsqueeze(1)
        kept = torch.where(own, tokens, 0.0).amax(2).long() + front
        kept = torch.cat([torch.arange(front, device=kept.device).expand(len(kept), -1), kept], dim=1)
        if rule is None:
            return Selection(kept, gap)
        gone = (tokens + count * self.stays.to(place.dtype)).topk(count + front - keep, dim=1, largest=False).indices
        target = place.gather(1, gone).clamp_min(0).long()
        return Selection(kept, gap, Merge(gone + front, target, rule, active, weighing), place=place, stays=self.stays)


def left_out(tokens: int, prefix: int) -> int:
    """Leading prefix tokens that matrices leave out: one of an odd number, as an even one needs no padding."""
    return tokens % 2 if prefix else 0


def places_of(tokens: int, prefix: int, like: Tensor) -> Tensor:
    """Positions [tokens - front] of the tokens that matrices hold, in the type of another tensor."""
    return torch.arange(left_out(tokens, prefix), tokens, device=like.device).to(like.dtype)


def in_group(places: Tensor, prefix: int, group: int) -> Tensor:
    """Whether tokens are patches at even (group 0) or odd (1) positions."""
    return (places >= prefix) & (places % 2 == group)


@dataclass(frozen=True)
class Nearest:
    """The best match of every token, and what the class token pays for it.

    Attributes:
        cosine: [batch, tokens - front], of that match.
        where: [batch, tokens - front], its position, in the keys' type.
        in_a: [tokens - front] bool, patches of group A, which look for one.
        attended: [batch, tokens - front], the class token's attention summed over heads; None: not asked for.
    """

    cosine: Tensor
    where: Tensor
    in_a: Tensor
    attended: Tensor | None = None

    def values(self, weights: Tensor | None = None) -> Tensor:
        """What merging a token is worth, the highest first; `LEAST` for what is no patch of group A.

        Args:
            weights: [batch, tokens - front], see `matching.match_tokens`; those of prefix tokens do not matter.
        """
        value = self.cosine if weights is None else (self.cosine - 1) * weights
        return torch.where(self.in_a, value, LEAST)


def nearest(keys: Tensor, prefix: int, squares: Tensor | None = None, logits: Tensor | None = None) -> Nearest:
    """The best match of every token in group B.

    Args:
        keys: [batch, tokens, dim], averaged over heads.
        prefix: leading tokens that never merge.
        squares: [batch, tokens], those of the keys summed, where they are known already.
        logits: [batch, heads, tokens] of the class token; they are normalized as further rows of the similarities,
            which saves a kernel.
    """
    tokens = keys.shape[1]
    front, places = left_out(tokens, prefix), places_of(tokens, prefix, keys)
    part = keys[:, front:]
    squares = _squares(part) if squares is None else squares[:, front:]
    scale = squares.clamp_min(1e-24).rsqrt()
    similarity = torch.matmul(part, part.transpose(1, 2)) * scale.unsqueeze(1)
    rows = torch.where(in_group(places, prefix, 1), similarity, LEAST)
    if logits is not None:
        rows = torch.cat([rows, logits[:, :, front:]], dim=1)
    best = rows.amax(-1, keepdim=True)
    # The maximum and its place in one kernel, which an ArgMax would not be.
    second = torch.where(rows == best, places, float(tokens)).amin(-1)
    attended = None
    if logits is not None:
        # Chosen between before it is taken apart: taken apart first, every sum would be a kernel.
        is_logits = torch.arange(rows.shape[1], device=keys.device) >= part.shape[1]
        second = torch.where(is_logits, (rows - best).exp().sum(-1), second)
        attended = _attended(logits, front, best[:, part.shape[1] :], second[:, part.shape[1] :].unsqueeze(-1))
    count = part.shape[1]
    cosine = best[:, :count].squeeze(-1) * scale
    return Nearest(cosine, second[:, :count], in_group(places, prefix, 0), attended)


def _squares(part: Tensor) -> Tensor:
    """Squares of [batch, tokens, dim] summed over the last axis.

    As one of two rows: TensorRT for RTX sums a single row of 64 in a kernel of its own.
    """
    squares = part.square().unsqueeze(1)
    return torch.cat([squares, squares], dim=1).sum(-1)[:, 0]


def _attended(logits: Tensor, front: int, peak: Tensor, total: Tensor) -> Tensor:
    """Softmax of logits summed over heads, but for the first `front` tokens, 0 or 1.

    Args:
        logits: [batch, heads, tokens].
        peak, total: [batch, heads, 1], largest and sum of exponentials, without those tokens.
    """
    if front:
        total = total + (logits[:, :, :front] - peak).exp()
    return ((logits[:, :, front:] - peak).exp() / total).sum(1)


def move_matched(ahead: Tensor, where: Tensor, tokens: int, prefix: int, reduction: int) -> Moves:
    """Merge the patches of group A that rank first.

    Args:
        ahead: [batch, tokens - front], how many values are higher than that of a token.
        where: positions of the matches, see `nearest`.
        tokens: before the stage.
        prefix: leading tokens that never merge.
        reduction: patches of A that merge.
    """
    first, odd = prefix + prefix % 2, prefix + 1 - prefix % 2
    start_of_b = prefix + len(range(first, tokens, 2)) - reduction
    places = places_of(tokens, prefix, where)
    in_a = in_group(places, prefix, 0)
    merges = ahead < reduction
    left = ~merges & in_a
    before = (left.unsqueeze(1) & (places < places.unsqueeze(1))).to(where.dtype).sum(2)
    others = torch.where(places < prefix, places, start_of_b + (places - odd) / 2)
    place = torch.where(in_a, prefix + before, others)
    return Moves(torch.where(merges, start_of_b + (where - odd) / 2, place), ~merges, left_out(tokens, prefix))
