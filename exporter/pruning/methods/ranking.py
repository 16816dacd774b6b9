"""The best of some scores, with fixed counts, and how near the cut was."""

from __future__ import annotations

import torch
from torch import Tensor


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


def keep_top_tokens(scores: Tensor, keep: int) -> Tensor:
    """Positions of the `keep` best tokens in ascending order.

    Ascending order makes what follows independent of how near-ties were ranked.

    Args:
        scores: [batch, tokens]; prefix tokens must have been set above every patch.

    Returns:
        [batch, keep] int64.
    """
    return ascending(scores.topk(keep, dim=1).indices)


def count_ahead(scores: Tensor) -> Tensor:
    """How many tokens rank before each: those with a higher score, and those with an equal one that stand before it.

    Args:
        scores: [batch, tokens].

    Returns:
        [batch, tokens] in the scores' type, exact for as many tokens as that counts.
    """
    own, other = scores.unsqueeze(2), scores.unsqueeze(1)
    places = torch.arange(scores.shape[1], device=scores.device)
    earlier = places < places.unsqueeze(1)
    return ((other > own) | ((other == own) & earlier)).to(scores.dtype).sum(2)


def ascending(positions: Tensor) -> Tensor:
    """[batch, n] positions in ascending order.

    They are sorted as float32, exact far beyond any token count: TensorRT before 10 has no TopK on integers.
    """
    return positions.float().topk(positions.shape[1], dim=1, largest=False, sorted=True).values.long()


def keep_top_patches(scores: Tensor, patches: int, prefix: int) -> Tensor:
    """Positions of the `patches` best patches in ascending order, all prefix tokens in front.

    Args:
        scores: [batch, patch tokens].

    Returns:
        [batch, prefix + patches] int64.
    """
    front = torch.arange(prefix, device=scores.device).expand(scores.shape[0], -1)
    return torch.cat([front, keep_top_tokens(scores, patches) + prefix], dim=1)
