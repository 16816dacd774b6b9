"""The attention matrix as a graph whose tokens vote: PageRank, and which heads count (Zero-TPrune, section 3.2)."""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor


def initial_scores(tokens: int, boost: bool, like: Tensor) -> Tensor:
    """PageRank start [1, 1, 1, tokens]: ones, the class token sqrt(tokens) times as much when boosted."""
    start = torch.ones(tokens, dtype=like.dtype, device=like.device)
    if boost:
        start = torch.cat([start[:1] * math.sqrt(tokens), start[1:]])
    return start.view(1, 1, 1, tokens)


def page_rank(attention: Tensor, start: Tensor, iterations: int, alive: Tensor | None = None) -> Tensor:
    """Weighted PageRank (section 3.2): token i votes for j with weight A[i, j], scaled by its own score.

    Args:
        attention: [batch, heads, tokens, tokens]; column j is what j receives.
        start: [1 or batch, 1, 1, tokens]; 0 for tokens that are not alive.
        iterations: fixed number of rounds.
        alive: [batch, 1, 1, tokens] of 0 and 1; a token that is not alive takes no part at all. None: all are.

    Returns:
        [batch, heads, 1, tokens]; without removed tokens the sum over tokens is that of `start`.
    """
    score = start
    for _ in range(iterations):
        score = torch.matmul(score, attention)
        score = score if alive is None else score * alive
    return score


def head_weights(scores: Tensor, prefix: int, living: int, accepted: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Variance-based head filter (section 3.2): 1 for heads whose score variance lies in `accepted`, next to 0 else.

    Scores are scaled to mean 1 first, because with scores that sum to 1 the variance can never reach 0.01.
    Heads outside weigh 1e-9: nothing beside one that passes, and all alike where none does.

    Args:
        scores: [batch, heads, 1, tokens]; tokens that are not alive have score 0.
        prefix: leading tokens that are no patches; they are not measured.
        living: patches that are alive.

    Returns:
        weights and variances, [batch, heads, 1, 1] each.
    """
    patches = _patches(scores, prefix).unsqueeze(-1)
    # On the mean-1 scale the variance is the mean square less 1; dead patches add nothing to either sum.
    ratio = (scores.square() @ patches) / (scores @ patches).square()
    return _weights(ratio, living, accepted), ratio * living - 1


def weighted_sum(
    scores: Tensor, values: Tensor, prefix: int, living: int, accepted: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `head_weights` finds, and the sum over heads with those weights, one head after the other.

    TensorRT fuses the filters of all heads into one kernel and the additions with what ranks their sum; a sum over a
    dimension of heads it never fuses with a TopK.

    Args:
        scores, prefix, living, accepted: as in `head_weights`.
        values: [batch, heads, 1, tokens], to be summed.

    Returns:
        the sum [batch, 1, 1, tokens], weights and variances, [batch, heads, 1, 1] each.
    """
    patches = _patches(scores, prefix)
    heads, summed = (each.flatten(1, 2).split(1, dim=1) for each in (scores, values))  # in float32, too, one kernel so
    ratios = [
        (head.square() * patches).sum(-1, keepdim=True) / (head * patches).sum(-1, keepdim=True).square()
        for head in heads
    ]
    weights = [_weights(ratio, living, accepted) for ratio in ratios]
    total = reduce(torch.add, [weight * value for weight, value in zip(weights, summed, strict=True)])
    weight, ratio = (torch.cat(each, dim=1).unsqueeze(-1) for each in (weights, ratios))
    return total.unsqueeze(1), weight, ratio * living - 1


def _patches(scores: Tensor, prefix: int) -> Tensor:
    return (torch.arange(scores.shape[-1], device=scores.device) >= prefix).to(scores.dtype)


def _weights(ratio: Tensor, living: int, accepted: tuple[float, float]) -> Tensor:
    """Of heads by the sum of squared scores over the square of their sum."""
    low, high = ((1 + limit) / living for limit in accepted)
    return torch.where(ratio == ratio.clamp(low, high), 1.0, 1e-9).to(ratio.dtype)


def variance_gap(variance: Tensor | None, accepted: tuple[float, float] | None) -> Tensor | None:
    """Relative distance [batch] of the head variance that lies nearest to a limit of the filter."""
    if variance is None or accepted is None:
        return None
    limits = torch.tensor(accepted, dtype=variance.dtype, device=variance.device)
    return ((variance.flatten(1).unsqueeze(-1) - limits).abs() / limits.clamp_min(1e-12)).amin(dim=(1, 2))
