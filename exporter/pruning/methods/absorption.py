"""Patches absorbed by more significant ones that are alike: every pair of patches may merge, in one direction.

What a patch costs is `(1 - cosine to the most alike of the more significant patches) * significance ** exponent`, where
a cosine below 0 counts as 0. The cheapest go, each into the most alike of those that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..rows import rows_of
from .evidence import Evidence
from .moves import LEAST, Moves, left_out, places_of
from .ranking import best_tokens, count_ahead, relative_gap
from .selection import BY_SIZE, Merge, MergeRule, Selection, Weighing, power

# Times a difference of two significances, it is above every product of tokens. A power of two makes the products exact:
# a compiler may multiply and subtract in one rounding, and a token's distance to itself must still be 0.
WIDE = 2.0**50
LEAST_WORTH = 1e-6  # of a significance: no sum of them is 0


def worth_of(evidence: Evidence) -> Tensor:
    """Significance of the tokens [batch, tokens], above 0."""
    return evidence.significance.clamp_min(LEAST_WORTH)


def absorb(
    evidence: Evidence,
    keep: int,
    features: Tensor,
    exponent: float,
    rule: MergeRule = "mean",
    weighing: Weighing = BY_SIZE,
) -> Selection:
    """A stage at which patches go into more significant ones.

    Args:
        evidence: of the block.
        keep: tokens after the stage; at least one patch stays.
        features: [batch, tokens, dim], what is compared.
        exponent: of a patch's significance in what it costs.
        rule, weighing: see `Merge`.
    """
    prefix, tokens = evidence.prefix, features.shape[1]
    worth = worth_of(evidence)
    similarity, inverse = alike(features)
    cost = _cost(similarity, inverse, worth, torch.arange(tokens, device=features.device) >= prefix, exponent)
    order = best_tokens(cost, tokens, prefix)
    kept, gone = order[:, :keep], order[:, keep:]
    # Taken from the matrix of all pairs: less than to multiply those that are left once more.
    choices = rows_of(rows_of(similarity, gone).transpose(1, 2), kept)[:, prefix:]
    target = choices.argmax(1) + prefix
    similarity = similarity * inverse.unsqueeze(2)
    gap = _gap(similarity[:, prefix:, prefix:], worth[:, prefix:], cost[:, prefix:], choices.transpose(1, 2), exponent)
    if evidence.compares:
        return by_comparison(evidence, keep, features, exponent).selection(keep, gap, rule, weighing=weighing)
    return Selection(kept, gap, Merge(gone, target, rule, weighing=weighing))


def alike(features: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs times the row's own length [batch, n, n], and the inverse of those lengths [batch, n].

    Args:
        features: [batch, n, dim].
    """
    products = torch.matmul(features, features.transpose(1, 2))
    squares = products.flatten(1)[:, :: features.shape[1] + 1]  # the diagonal, where it lies
    inverse = squares.clamp_min(1e-24).rsqrt()
    return products * inverse.unsqueeze(1), inverse


def _cost(similarity: Tensor, inverse: Tensor, worth: Tensor, patch: Tensor, exponent: float) -> Tensor:
    """What it costs that a token goes into the most alike of the more significant patches [batch, tokens].

    Args:
        similarity: [batch, tokens, tokens], cosines times the row's own length.
        inverse: [batch, tokens], of those lengths.
        worth: [batch, tokens], significance.
        patch: [tokens] bool; others absorb nothing.
        exponent: see `absorb`.
    """
    standing = torch.where(patch, worth, -1.0) * WIDE
    # No more than 0 beside what is not more significant: onnxruntime takes seven times as long for a Where.
    allowed = standing.unsqueeze(1) - standing.unsqueeze(2)
    best = torch.minimum(similarity, allowed).amax(2) * inverse
    return (1 - best) * power(worth, exponent)


def choice_gap(choices: Tensor) -> Tensor:
    """Smallest relative distance [batch] between the best and the second of choices [batch, choosing, n]."""
    if choices.shape[2] < 2:
        return torch.full_like(choices[:, 0, 0], float("inf"))
    first_two = choices.sort(dim=-1, descending=True).values[..., :2].flatten(0, 1)
    return relative_gap(first_two, 1).view(len(choices), -1).amin(1)


def by_comparison(evidence: Evidence, keep: int, features: Tensor, exponent: float) -> Moves:
    """What `absorb` decides, by comparing every pair of tokens where they stand: nothing is sorted and gathered."""
    tokens, prefix = features.shape[1], evidence.prefix
    front, places = left_out(tokens, prefix), places_of(tokens, prefix, features)
    part, worth, patch = features[:, front:], worth_of(evidence)[:, front:], places >= prefix
    similarity, inverse = alike(part)
    cost = _cost(similarity, inverse, worth, patch, exponent)
    rank = count_ahead(torch.where(patch, cost, -LEAST))
    stays = rank < keep - front
    rows = torch.where((stays & patch).unsqueeze(1), similarity, LEAST)
    first = torch.where(rows == rows.amax(2, keepdim=True), rank.unsqueeze(1), float(tokens)).amin(2)
    return Moves(front + torch.where(stays, rank, first), stays, front)


def _gap(similarity: Tensor, worth: Tensor, cost: Tensor, choices: Tensor, exponent: float) -> Tensor:
    """How near a stage's decisions were, see `Selection.gap`: who leaves, and where to.

    Who leaves hangs on the cut, and on which of two patches is more significant, where one of them would go for it.

    Args:
        similarity: [batch, patches, patches].
        worth: [batch, patches], significance.
        cost: [batch, patches].
        choices: [batch, patches that leave, patches that stay], similarities.
        exponent: see `absorb`.
    """
    leave, patches = choices.shape[1], cost.shape[1]
    ranked = cost.sort(dim=1).values
    gap = relative_gap(-ranked, leave)
    dearest = ranked[:, leave - 1, None, None]
    own, other = worth.unsqueeze(2), worth.unsqueeze(1)
    apart = (own - other).abs() / torch.maximum(own, other).clamp_min(1e-30)
    matters = (1 - similarity.clamp_min(0)) * power(own, exponent) <= dearest
    matters = matters & ~torch.eye(patches, dtype=torch.bool, device=cost.device)
    gap = torch.minimum(gap, torch.where(matters, apart, float("inf")).flatten(1).amin(1))
    return torch.minimum(gap, choice_gap(choices))
