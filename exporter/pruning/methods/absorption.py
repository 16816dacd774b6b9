"""Patches absorbed by more significant ones that are alike: every pair of patches may merge, in one direction.

What a patch costs is `(1 - cosine to the most alike of the more significant patches) * significance ** exponent`. The
cheapest go, each into the most alike of those that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reduce import rows_of
from .base import Evidence, Merge, Selection
from .moves import LEAST, Moves, left_out, places_of
from .ranking import best_tokens, count_ahead, relative_gap

LEAST_COSINE = -1.0
LEAST_WEIGHT = 1e-6  # of a significance that weighs a merge, so that no sum of them is 0


def merge_weights(evidence: Evidence, weight: float) -> Tensor | None:
    """What a token counts in a merge beside its size [batch, tokens]; None: nothing.

    Args:
        weight: exponent of its significance.
    """
    return evidence.significance.clamp_min(LEAST_WEIGHT) ** weight if weight else None


def absorb(evidence: Evidence, keep: int, features: Tensor, exponent: float, weights: Tensor | None) -> Selection:
    """A stage at which patches go into more significant ones.

    Args:
        evidence: of the block.
        keep: tokens after the stage; at least one patch stays.
        features: [batch, tokens, dim], what is compared.
        exponent: of a patch's significance in what it costs.
        weights: see `Merge.weights`.
    """
    prefix, significance = evidence.prefix, evidence.significance
    length = features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    unit = features / length
    similarity = torch.matmul(unit, unit.transpose(1, 2))
    patch = torch.arange(features.shape[1], device=features.device) >= prefix
    standing = torch.where(patch, significance, -1.0)  # prefix tokens absorb nothing
    more = standing.unsqueeze(1) > standing.unsqueeze(2)
    cost = (1 - torch.where(more, similarity, LEAST_COSINE).amax(2)) * significance**exponent
    order = best_tokens(cost, features.shape[1], prefix)
    kept, gone = order[:, :keep], order[:, keep:]
    choices = torch.matmul(rows_of(unit, gone), rows_of(unit, kept[:, prefix:]).transpose(1, 2))
    target = choices.argmax(2) + prefix
    gap = _gap(similarity[:, prefix:, prefix:], significance[:, prefix:], cost[:, prefix:], choices, exponent)
    if evidence.compares:
        return by_comparison(evidence, keep, features, exponent).selection(keep, gap, "mean", weights=weights)
    return Selection(kept, gap, Merge(gone, target, weights=weights))


def by_comparison(evidence: Evidence, keep: int, features: Tensor, exponent: float) -> Moves:
    """What `absorb` decides, by comparing every pair of tokens where they stand: nothing is sorted and gathered."""
    tokens, prefix = features.shape[1], evidence.prefix
    front, places = left_out(tokens, prefix), places_of(tokens, prefix, features)
    part, significance, patch = features[:, front:], evidence.significance[:, front:], places >= prefix
    inverse = part.square().sum(-1).clamp_min(1e-24).rsqrt()
    similarity = torch.matmul(part, part.transpose(1, 2)) * inverse.unsqueeze(1)
    standing = torch.where(patch, significance, -1.0)
    more = standing.unsqueeze(1) > standing.unsqueeze(2)
    best = torch.where(more, similarity, LEAST).amax(2) * inverse
    cost = (1 - best.clamp_min(LEAST_COSINE)) * significance**exponent
    rank = count_ahead(torch.where(patch, cost, -LEAST))
    stays = rank < keep - front
    rows = torch.where((stays & patch).unsqueeze(1), similarity, LEAST)
    first = torch.where(rows == rows.amax(2, keepdim=True), rank.unsqueeze(1), float(tokens)).amin(2)
    return Moves(front + torch.where(stays, rank, first), stays, front)


def _gap(similarity: Tensor, significance: Tensor, cost: Tensor, choices: Tensor, exponent: float) -> Tensor:
    """How near a stage's decisions were, see `Selection.gap`: who leaves, and where to.

    Who leaves hangs on the cut, and on which of two patches is more significant, where one of them would go for it.

    Args:
        similarity: [batch, patches, patches].
        significance: [batch, patches].
        cost: [batch, patches].
        choices: [batch, patches that leave, patches that stay], similarities.
        exponent: see `absorb`.
    """
    leave, patches = choices.shape[1], cost.shape[1]
    ranked = cost.sort(dim=1).values
    gap = relative_gap(-ranked, leave)
    dearest = ranked[:, leave - 1, None, None]
    own, other = significance.unsqueeze(2), significance.unsqueeze(1)
    apart = (own - other).abs() / torch.maximum(own, other).clamp_min(1e-30)
    matters = (1 - similarity) * own**exponent <= dearest
    matters = matters & ~torch.eye(patches, dtype=torch.bool, device=cost.device)
    gap = torch.minimum(gap, torch.where(matters, apart, float("inf")).flatten(1).amin(1))
    if choices.shape[2] > 1:
        first_two = choices.sort(dim=-1, descending=True).values[..., :2].flatten(0, 1)
        gap = torch.minimum(gap, relative_gap(first_two, 1).view(len(gap), -1).amin(1))
    return gap
