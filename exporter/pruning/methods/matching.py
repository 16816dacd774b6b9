"""Bipartite soft matching (ToMe, arXiv 2210.09461, section 3): which tokens merge into which, with fixed counts.

Written from the specification. Patches at even positions (group A) look for their nearest one at an odd position
(group B); prefix tokens take no part.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..block import mean_of_heads
from .evidence import Evidence
from .moves import left_out, move_matched, nearest
from .ranking import ascending, count_ahead, relative_gap
from .selection import BY_SIZE, Merge, MergeRule, Selection, Weighing


def largest_reduction(tokens: int, prefix: int) -> int:
    """How many tokens one matching can remove: every patch of group A, as long as group B has one."""
    patches_of_a = (tokens - prefix + (1 if prefix % 2 == 0 else 0)) // 2
    return patches_of_a if tokens - prefix > patches_of_a else max(patches_of_a - 1, 0)


def match(
    evidence: Evidence,
    keep: int,
    rule: MergeRule | None,
    exponent: float = 0.0,
    features: Tensor | None = None,
    weighing: Weighing = BY_SIZE,
) -> Selection:
    """A stage that merges, or drops, the most similar patches.

    Args:
        evidence: of the block.
        keep: tokens after the stage.
        rule: how they merge; None: they are dropped.
        exponent: of a token's significance, which says what it is worth, see `match_tokens`; 0: all are worth the same.
        features: [batch, tokens, dim], what is compared; None: keys averaged over heads.
        weighing: see `Merge`.
    """
    keys, prefix = evidence.keys.mean(1) if features is None else features, evidence.prefix
    tokens = keys.shape[1]
    # Ratios are all that counts: no need to divide by the sum, as shares are.
    worth = evidence.significance**exponent if exponent else None
    kept, merge, gap = match_tokens(keys, prefix, tokens - keep, None if worth is None else worth[:, prefix:])
    if evidence.compares:
        front = left_out(tokens, prefix)
        squares = evidence.key_squares if features is None else None
        keys = mean_of_heads(evidence.keys) if features is None else features
        found = nearest(keys, prefix, squares, evidence.logits if exponent else None)
        if found.attended is not None:
            worth = (found.attended * evidence.lengths[:, front:]) ** exponent
        elif worth is not None:
            worth = worth[:, front:]
        moves = move_matched(count_ahead(found.values(worth)), found.where, tokens, prefix, tokens - keep)
        return moves.selection(keep, gap, rule, weighing=weighing)
    return Selection(kept, gap, None if rule is None else replace(merge, rule=rule, weighing=weighing))


def match_tokens(
    keys: Tensor, prefix: int, reduction: int, weights: Tensor | None = None
) -> tuple[Tensor, Merge, Tensor]:
    """Pair the `reduction` most similar patches of A with their best match in B.

    Args:
        keys: [batch, tokens, dim], averaged over heads.
        prefix: leading tokens that never merge.
        reduction: patches of A that merge.
        weights: [batch, patches], what a patch is worth; given, those of the smallest `(1 - cosine) * weight` merge.

    Returns:
        kept positions [batch, tokens - reduction]: the prefix, what is left of A in ascending order, all of B; the
        merge; and the smallest relative gap [batch], at the cut between merged and left or between the best match of a
        merged patch and the next.
    """
    batch, tokens, _ = keys.shape
    first, odd = prefix + prefix % 2, prefix + 1 - prefix % 2
    unit = keys / keys.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    similarity = torch.matmul(unit[:, first::2], unit[:, odd::2].transpose(1, 2))
    best, where = similarity.max(dim=-1)
    if weights is not None:
        best = (best - 1) * weights[:, first - prefix :: 2]
    ranked = best.topk(best.shape[1], dim=1)
    merged, left = ranked.indices[:, :reduction], ranked.indices[:, reduction:]
    front = torch.arange(prefix, device=keys.device).expand(batch, -1)
    group_b = torch.arange(odd, tokens, 2, device=keys.device).expand(batch, -1)
    kept = torch.cat([front, ascending(left) * 2 + first, group_b], dim=1)
    target = where.gather(1, merged) + (prefix + best.shape[1] - reduction)
    gap = relative_gap(ranked.values, reduction)
    if similarity.shape[2] > 1:
        first_two = similarity.sort(dim=-1, descending=True).values[..., :2].flatten(0, 1)
        gap = torch.minimum(gap, relative_gap(first_two, 1).view(batch, -1).gather(1, merged).amin(1))
    return kept, Merge(merged * 2 + first, target), gap
