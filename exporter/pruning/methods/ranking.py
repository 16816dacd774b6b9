"""The best of some scores, with fixed counts, and how near the cut was."""

from __future__ import annotations

import torch
from torch import Tensor

APART = 1e30  # sets prefix tokens above every score, and each above the next


def relative_gap(scores: Tensor, cut: int) -> Tensor:
    """Relative distance between the `cut`-th and the next of descending scores.

    Args:
        scores: [batch, n], sorted in descending order.
        cut: how many stay on the upper side; 0 or n mean that nothing is cut.

    Returns:
        [batch] float32, infinity where nothing is cut.
    """
    if not 0 < cut < scores.shape[1]:
        return torch.full_like(scores[:, 0], float("inf"))
    above, below = scores[:, cut - 1], scores[:, cut]
    return (above - below) / above.abs().clamp_min(1e-12)


def best_tokens(scores: Tensor, keep: int, prefix: int) -> Tensor:
    """Positions of the `keep` best tokens as they rank: all prefix tokens in their order, then the best patch first.

    The smallest of negated scores are asked for: TensorRT computes those and ranks them in one kernel, and needs two
    for the largest.

    Args:
        scores: [batch, tokens] of patches; what stands there for prefix tokens does not matter.
        keep: tokens, prefix tokens included.

    Returns:
        [batch, keep] int64.
    """
    order = prefix - torch.arange(scores.shape[1], device=scores.device)
    return (scores.neg() - order.clamp_min(0) * APART).topk(keep, dim=1, largest=False).indices


def count_ahead(scores: Tensor) -> Tensor:
    """How many tokens rank before each: those with a higher score, and those with an equal one that stand before it.

    Args:
        scores: [batch, tokens].

    Returns:
        [batch, tokens] in the scores' type, exact for as many tokens as that counts.
    """
    return is_ahead(scores).to(scores.dtype).sum(2)


def is_ahead(scores: Tensor) -> Tensor:
    """Whether one token (the last axis) ranks before another, see `count_ahead`: [batch, tokens, tokens]."""
    own, other = scores.unsqueeze(2), scores.unsqueeze(1)
    places = torch.arange(scores.shape[1], device=scores.device)
    earlier = places < places.unsqueeze(1)
    return (other > own) | ((other == own) & earlier)


def ascending(positions: Tensor) -> Tensor:
    """[batch, n] positions in ascending order."""
    return _sorted(positions).values.long()


def order_of(positions: Tensor) -> Tensor:
    """Where the elements of `ascending` stand, [batch, n] int64."""
    return _sorted(positions).indices


def _sorted(positions: Tensor) -> torch.return_types.topk:
    """Sorted as float32, exact far beyond any token count: TensorRT before 10 has no TopK on integers."""
    return positions.float().topk(positions.shape[1], dim=1, largest=False, sorted=True)
