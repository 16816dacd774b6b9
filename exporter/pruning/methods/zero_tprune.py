"""Zero-TPrune (arXiv 2305.17328, CVPR 2024): tokens ranked by PageRank on the attention graph, then de-duplicated.

One stage runs I' -> S -> I (the paper's section 3): one voting round ranks the patches (I'), near-duplicates of
better-ranked patches are dropped (S), and a full PageRank over the survivors keeps the best (I). All counts are
fixed, so that every shape is static: importance picks with TopK of a constant k, similarity with a constant r.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ...core.errors import InputError
from ..budget import Place
from .base import Evidence, Scores, Selection, ascending, keep_top_tokens, need_attention, relative_gap

NEEDS_ATTENTION = True
APART = 1e30  # sets the prefix tokens above or below every score; infinite once in half precision, which serves as well


class Parameters(BaseModel):
    """Parameters of Zero-TPrune that hold for all stages.

    Attributes:
        place: `before_mlp` removes tokens between attention and MLP, `after_block` after the whole block (paper).
        start: initial PageRank score; `class_token` multiplies the class token's by sqrt(tokens) (section 3.2),
            `uniform` is the paper's "Zero-TPrune-uni". Models without a class token always start uniform.
        heads: how heads are combined: `rms` is the paper's EIR, `mean` the plain average.
        variance_filter: VHF keeps a head when the variance of its scores, scaled to mean 1, lies in this range;
            null keeps all heads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"
    start: Literal["class_token", "uniform"] = "class_token"
    heads: Literal["rms", "mean"] = "rms"
    variance_filter: tuple[float, float] | None = (0.01, 0.7)


class StageOptions(BaseModel):
    """What one stage's row may say.

    Attributes:
        similar: patches that the similarity step removes (r_S); the rest of the removal is by importance.
        iterations: PageRank iterations of the final importance step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    similar: int = Field(default=0, ge=0)
    iterations: int = Field(default=5, ge=1, le=100)


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
    patches = (torch.arange(scores.shape[-1], device=scores.device) >= prefix).to(scores.dtype).unsqueeze(-1)
    # On the mean-1 scale the variance is the mean square less 1; dead patches add nothing to either sum.
    ratio = (scores.square() @ patches) / (scores @ patches).square()
    low, high = ((1 + limit) / living for limit in accepted)
    return torch.where(ratio == ratio.clamp(low, high), 1.0, 1e-9).to(scores.dtype), ratio * living - 1


def standing(
    attention: Tensor,
    start: Tensor,
    iterations: int,
    prefix: int,
    parameters: Parameters,
    alive: Tensor | None = None,
    removed: int = 0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What ranks the tokens: PageRank per head, heads filtered (VHF) and their scores or squares summed (EIR).

    The root and the division of EIR change no rank and are left to `importance`.

    Args:
        attention: [batch, heads, tokens, tokens].
        start: [1 or batch, 1, 1, tokens].
        alive: [batch, 1, 1, tokens] of 0 and 1; None: all are.
        removed: patches that are not alive.

    Returns:
        [batch, 1, 1, tokens], 0 for removed patches; the head weights and variances [batch, heads, 1, 1], None
        without VHF.
    """
    scores = page_rank(attention, start, iterations, alive)
    values = scores if parameters.heads == "mean" else scores.square()
    if parameters.variance_filter is None:
        return values.sum(1, keepdim=True), None, None
    living = attention.shape[-1] - prefix - removed
    weights, variance = head_weights(scores, prefix, living, parameters.variance_filter)
    return (weights * values).sum(1, keepdim=True), weights, variance


def importance(
    attention: Tensor, start: Tensor, iterations: int, prefix: int, parameters: Parameters
) -> tuple[Tensor, Tensor | None]:
    """Scores of the patches on the paper's scale: with EIR the root of the mean square over the heads that pass VHF.

    Args:
        attention: [batch, heads, tokens, tokens].
        start: [1 or batch, 1, 1, tokens].

    Returns:
        [batch, patches], and the head variances [batch, heads, 1, 1] (None without VHF).
    """
    total, weights, variance = standing(attention, start, iterations, prefix, parameters)
    mean = total / (attention.shape[1] if weights is None else weights.sum(1, keepdim=True))
    patches = mean.flatten(1)[:, prefix:]
    return (patches if parameters.heads == "mean" else patches.sqrt()), variance


def best_matches(keys: Tensor, rank: Tensor) -> Tensor:
    """The S-stage (section 3.3), Sequential-U partition: how near a duplicate the worse patches have.

    The better-ranked half is group B, the rest group A.

    Args:
        keys: [batch, tokens, dim], averaged over heads.
        rank: [batch, patches] positions of the patches in descending order of importance.

    Returns:
        [batch, |A|] largest cosine similarity to any patch of B, in the order of `rank`.
    """
    half = rank.shape[1] // 2
    unit = keys / keys.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    ordered = unit.gather(1, rank.unsqueeze(-1).expand(-1, -1, unit.shape[-1]))
    return torch.matmul(ordered[:, half:], ordered[:, :half].transpose(1, 2)).amax(-1)


def initial_scores(tokens: int, boost: bool, like: Tensor) -> Tensor:
    """PageRank start [1, 1, 1, tokens]: ones, the class token sqrt(tokens) times as much when boosted."""
    start = torch.ones(tokens, dtype=like.dtype, device=like.device)
    if boost:
        start = torch.cat([start[:1] * math.sqrt(tokens), start[1:]])
    return start.view(1, 1, 1, tokens)


def variance_gap(variance: Tensor | None, accepted: tuple[float, float] | None) -> Tensor | None:
    """Relative distance [batch] of the head variance that lies nearest to a limit of the filter."""
    if variance is None or accepted is None:
        return None
    limits = torch.tensor(accepted, dtype=variance.dtype, device=variance.device)
    return ((variance.flatten(1).unsqueeze(-1) - limits).abs() / limits.clamp_min(1e-12)).amin(dim=(1, 2))


def score(evidence: Evidence, parameters: Parameters) -> Scores:
    """Judge a block of the dense model: full PageRank, and how many patches have a near-duplicate.

    Notes: `heads_kept`, the share of heads that pass VHF (0 or 1 everywhere means the scale is wrong), and
    `similarity`, the mean best cosine between the worse half's keys and the better half's.
    """
    attention, prefix = need_attention(evidence), evidence.prefix
    tokens = attention.shape[-1]
    boost = parameters.start == "class_token" and evidence.class_token
    start = initial_scores(tokens, boost, attention)
    scores, variance = importance(attention, start, StageOptions().iterations, prefix, parameters)
    notes: dict[str, Tensor] = {}
    if variance is not None and parameters.variance_filter is not None:
        low, high = parameters.variance_filter
        notes["heads_kept"] = ((variance >= low) & (variance <= high)).float().mean(dim=(1, 2, 3))
    rank = scores.argsort(dim=1, descending=True) + prefix
    notes["similarity"] = best_matches(evidence.keys.mean(1), rank).mean(1)
    return Scores(scores, notes)


def check_stage(before: int, keep: int, prefix: int, options: StageOptions, parameters: Parameters, where: str) -> None:
    """Refuse a similarity count that the stage cannot remove.

    Raises:
        InputError: naming the row, the value and the limit.
    """
    patches = before - prefix
    limit = min(patches - patches // 2, before - keep)
    if options.similar > limit:
        raise InputError(
            f"{where}.similar is {options.similar}, but this stage removes {before - keep} of {patches} patches and "
            f"similarity may remove at most half of them; use at most {limit}"
        )


def select(evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
    """One stage: I' -> S -> I with fixed counts.

    Args:
        evidence: attention and keys of the block.
        keep: tokens that stay, prefix tokens included.

    Returns:
        The kept positions, ascending, and the gap at the nearest of all cuts.
    """
    attention, prefix = need_attention(evidence), evidence.prefix
    tokens = attention.shape[-1]
    patches = tokens - prefix
    boost = parameters.start == "class_token" and evidence.class_token
    start = initial_scores(tokens, boost, attention)
    positions = torch.arange(tokens, device=attention.device)
    front = (positions < prefix).to(attention.dtype) * APART
    alive, gone = None, None
    gaps: list[Tensor | None] = []
    if options.similar:
        rough, _, variance = standing(attention, start, 1, prefix, parameters)
        rank = (rough - front).flatten(1).topk(patches, dim=1)
        better, worse = rank.indices[:, : patches // 2], rank.indices[:, patches // 2 :]
        match = best_matches(evidence.keys.mean(1), rank.indices).topk(patches - patches // 2, dim=1)
        gaps += [
            variance_gap(variance, parameters.variance_filter),
            relative_gap(root(rank.values, parameters), patches // 2),
            relative_gap(match.values, options.similar),
        ]
        if options.similar == tokens - keep:  # nothing is left for importance to choose
            stay = worse.gather(1, match.indices[:, options.similar :])
            always = positions[:prefix].expand(stay.shape[0], -1)
            return Selection(ascending(torch.cat([always, better, stay], dim=1)), smallest(gaps))
        removed = worse.gather(1, match.indices[:, : options.similar])
        # A comparison instead of a scatter: every backend has it, and no index is written twice.
        same = removed.view(-1, 1, options.similar, 1) == positions
        gone = same.to(attention.dtype).amax(2, keepdim=True)
        alive = 1 - gone
        start = start * alive
    scores, _, variance = standing(attention, start, options.iterations, prefix, parameters, alive, options.similar)
    ranked = scores if gone is None else scores - gone  # dead patches fall below every survivor, none is negative
    kept = keep_top_tokens((ranked + front).flatten(1), keep)
    gaps.append(variance_gap(variance, parameters.variance_filter))
    survivors = root(scores.flatten(1)[:, prefix:], parameters).sort(dim=1, descending=True).values
    gaps.append(relative_gap(survivors, keep - prefix))
    return Selection(kept, smallest(gaps))


def smallest(gaps: list[Tensor | None]) -> Tensor:
    """The smallest of several gaps [batch] or [1]; None stands for a cut that was not made."""
    return torch.stack(torch.broadcast_tensors(*(gap for gap in gaps if gap is not None))).amin(0)


def root(values: Tensor, parameters: Parameters) -> Tensor:
    """Summed scores on the scale of scores, so that gaps mean the same for both ways to combine heads."""
    return values if parameters.heads == "mean" else values.sqrt()
