"""Patches absorbed by more significant ones that are alike: every pair of patches may merge, in one direction.

What a patch costs is `(1 - cosine to the most alike of the more significant patches) * significance ** exponent`. The
cheapest go, each into the most alike of those that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reduce import rows_of
from .base import Evidence, Merge, Selection
from .ranking import best_tokens, relative_gap

APART = -1.0  # no cosine is smaller
LEAST = 1e-6  # of a significance that weighs a merge, so that no sum of them is 0


def merge_weights(evidence: Evidence, weight: float) -> Tensor | None:
    """What a token counts in a merge beside its size [batch, tokens]; None: nothing.

    Args:
        weight: exponent of its significance.
    """
    return evidence.significance.clamp_min(LEAST) ** weight if weight else None


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
    cost = (1 - torch.where(more, similarity, APART).amax(2)) * significance**exponent
    order = best_tokens(cost, features.shape[1], prefix)
    kept, gone = order[:, :keep], order[:, keep:]
    choices = torch.matmul(rows_of(unit, gone), rows_of(unit, kept[:, prefix:]).transpose(1, 2))
    target = choices.argmax(2) + prefix
    gap = _gap(similarity[:, prefix:, prefix:], significance[:, prefix:], cost[:, prefix:], choices, exponent)
    return Selection(kept, gap, Merge(gone, target, weights=weights))


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
