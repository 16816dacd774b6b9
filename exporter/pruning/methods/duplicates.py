"""The S-stage of Zero-TPrune (arXiv 2305.17328, section 3.3): patches that have near-duplicates of better rank."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..rows import rows_of
from .absorption import alike
from .ranking import APART, count_ahead, relative_gap

OUTSIDE = -1e20  # below every cosine less 1, however much it is weighed


class Judging(Protocol):
    """Parameters of a method by which duplicates are judged, see `zero_tprune.ZeroTPrune.Parameters`."""

    @property
    def exponent(self) -> float:
        """How much a patch's score counts beside how near a duplicate it is; 0: not at all."""

    @property
    def heads(self) -> Literal["rms", "mean"]:
        """Whether scores are summed over heads as they are, or their squares."""


def best_matches(unit: Tensor, rank: Tensor) -> Tensor:
    """The S-stage (section 3.3), Sequential-U partition: how near a duplicate the worse patches have.

    The better-ranked half is group B, the rest group A.

    Args:
        unit: [batch, tokens, dim], keys averaged over heads, of length 1.
        rank: [batch, patches] positions of the patches in descending order of importance.

    Returns:
        [batch, |A|] largest cosine similarity to any patch of B, in the order of `rank`.
    """
    half = rank.shape[1] // 2
    ordered = rows_of(unit, rank)
    return torch.matmul(ordered[:, half:], ordered[:, :half].transpose(1, 2)).amax(-1)


def directions(keys: Tensor) -> Tensor:
    """Keys [batch, heads, tokens, dim] averaged over heads, of length 1: [batch, tokens, dim]."""
    return normalize(keys.mean(1), dim=-1)


def worth_dropping(cosine: Tensor, scores: Tensor, parameters: Judging) -> Tensor:
    """What dropping patches is worth, the more the higher, by their best cosine and their summed scores [batch, n]."""
    power = parameters.exponent if parameters.heads == "mean" else parameters.exponent / 2  # of squares
    return (cosine - 1) * scores**power if power else cosine


def duplicates(
    keys: Tensor, scores: Tensor, prefix: int, similar: int, parameters: Judging
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The S-stage's choice: patches that have the nearest duplicates.

    Args:
        keys: [batch, tokens, dim], of length 1.
        scores: [batch, tokens], summed over heads; of prefix tokens they do not matter.
        prefix: leading tokens that are no patches.
        similar: how many go.

    Returns:
        positions of what stays [batch, tokens - similar], prefix tokens first, and of what goes [batch, similar]; and
        the gaps at both cuts.
    """
    positions = torch.arange(scores.shape[1], device=scores.device)
    patches = scores.shape[1] - prefix
    half = patches // 2
    rank = (scores - (positions < prefix).to(scores.dtype) * APART).topk(patches, dim=1)
    better, worse = rank.indices[:, :half], rank.indices[:, half:]
    match = worth_dropping(best_matches(keys, rank.indices), rank.values[:, half:], parameters)
    ranked = match.topk(patches - half, dim=1)
    gaps = [relative_gap(root(rank.values, parameters), half), relative_gap(ranked.values, similar)]
    stay = worse.gather(1, ranked.indices[:, similar:])
    kept = torch.cat([positions[:prefix].expand(len(stay), -1), better, stay], dim=1)
    return kept, worse.gather(1, ranked.indices[:, :similar]), gaps


def matches_by_comparison(keys: Tensor, scores: Tensor, prefix: int, parameters: Judging) -> Tensor:
    """What dropping each token is worth to the S-stage, found by comparing all pairs of tokens where they stand.

    Args:
        keys: [batch, heads, tokens, dim].
        scores: [batch, tokens], as in `duplicates`.

    Returns:
        [batch, tokens]; `OUTSIDE` for prefix tokens and the better half.
    """
    tokens = scores.shape[1]
    half = (tokens - prefix) // 2
    # Prefix tokens are compared, too, where that makes the number even: TensorRT copies what is odd for a product.
    first = prefix if (tokens - prefix) % 2 == 0 else 0
    keys, scores = keys[:, :, first:].mean(1), scores[:, first:]
    is_patch = torch.arange(first, tokens, device=scores.device) >= prefix
    better = count_ahead(torch.where(is_patch, scores, -APART)) < half
    similarity, inverse = alike(keys)
    best = torch.where(better.unsqueeze(1), similarity, -APART).amax(2) * inverse
    match = torch.where(is_patch & ~better, worth_dropping(best, scores, parameters), OUTSIDE)
    return torch.cat([match.new_full((len(match), first), OUTSIDE), match], dim=1)


def among(positions: Tensor, tokens: int, dtype: torch.dtype) -> Tensor:
    """1 for every token at [batch, n] positions and 0 for the others, [batch, tokens]."""
    # A comparison instead of a scatter: every backend has it, and no index is written twice.
    return (positions.unsqueeze(2) == torch.arange(tokens, device=positions.device)).to(dtype).amax(1)


def root(values: Tensor, parameters: Judging) -> Tensor:
    """Summed scores on the scale of scores, so that gaps mean the same for both ways to combine heads."""
    return values if parameters.heads == "mean" else values.sqrt()
