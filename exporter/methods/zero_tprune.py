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
from torch.nn import functional as F

from ..budget import Place
from ..errors import InputError
from .stage import Evidence, Scores, Selection, keep_top_patches, need_attention, relative_gap

NEEDS_ATTENTION = True


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
        [batch, heads, tokens]; without removed tokens the sum over tokens is that of `start`.
    """
    score = start
    for _ in range(iterations):
        score = torch.matmul(score, attention)
        score = score if alive is None else score * alive
    return score.squeeze(2)


def head_weights(scores: Tensor, alive: Tensor | None, accepted: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Variance-based head filter (section 3.2): 1 for heads whose score variance lies in `accepted`, else 0.

    Scores are scaled to mean 1 first, because with scores that sum to 1 the variance can never reach 0.01.
    Where no head passes, all count.

    Args:
        scores: [batch, heads, patches].
        alive: [batch, 1, patches] of 0 and 1; dead patches have score 0. None: all are alive.

    Returns:
        weights [batch, heads, 1] and the variances [batch, heads, 1].
    """
    # On the mean-1 scale the variance is the mean square less 1; dead patches add nothing to either sum.
    count = scores.shape[-1] if alive is None else alive.sum(-1, keepdim=True)
    total = scores.sum(-1, keepdim=True).clamp_min(1e-12)
    variance = scores.square().sum(-1, keepdim=True) * count / total.square() - 1
    low, high = accepted
    passed = ((variance >= low) & (variance <= high)).to(scores.dtype)
    none_passed = (passed.sum(1, keepdim=True) == 0).to(scores.dtype)
    return passed + none_passed, variance


def importance(
    attention: Tensor,
    start: Tensor,
    iterations: int,
    prefix: int,
    parameters: Parameters,
    alive: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """PageRank per head, heads filtered (VHF) and combined (EIR: root of the mean square).

    Args:
        attention: [batch, heads, tokens, tokens].
        start: [1 or batch, 1, 1, tokens].
        alive: [batch, 1, 1, tokens] of 0 and 1; None: all are.

    Returns:
        [batch, patches] scores, 0 for removed patches, and the head variances [batch, heads, 1] (None without VHF).
    """
    scores = page_rank(attention, start, iterations, alive)[:, :, prefix:]
    values = scores if parameters.heads == "mean" else scores.square()
    variance = None
    if parameters.variance_filter is None:
        combined = values.mean(1)
    else:
        living = None if alive is None else alive[:, :, 0, prefix:]
        weights, variance = head_weights(scores, living, parameters.variance_filter)
        combined = (weights * values).sum(1) / weights.sum(1)
    return (combined if parameters.heads == "mean" else combined.sqrt()), variance


def most_similar(keys: Tensor, rank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The S-stage (section 3.3), Sequential-U partition: patches to drop as near-duplicates of better ones.

    The better-ranked half is group B, the rest group A; the `count` patches of A whose best cosine similarity to
    B is largest go. Dropped, not merged.

    Args:
        keys: [batch, patches, dim], averaged over heads.
        rank: [batch, patches] positions in descending order of importance.

    Returns:
        removed [batch, count] patch positions, and all of A's best similarities in descending order [batch, |A|].
    """
    half = rank.shape[1] // 2
    unit = F.normalize(keys, dim=-1)
    ordered = unit.gather(1, rank.unsqueeze(-1).expand(-1, -1, unit.shape[-1]))
    better, worse = ordered[:, :half], ordered[:, half:]
    best_match = torch.matmul(worse, better.transpose(1, 2)).amax(-1)
    top = best_match.topk(best_match.shape[1], dim=1)
    removed = rank[:, half:].gather(1, top.indices[:, :count])
    return removed, top.values


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
    return ((variance - limits).abs() / limits.clamp_min(1e-12)).amin(dim=(1, 2))


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
        notes["heads_kept"] = ((variance >= low) & (variance <= high)).float().mean(dim=(1, 2))
    rank = scores.argsort(dim=1, descending=True)
    _, similarity = most_similar(evidence.keys.mean(1)[:, prefix:], rank, 0)
    notes["similarity"] = similarity.mean(1)
    return Scores(scores, notes)


def check_stage(before: int, keep: int, prefix: int, options: StageOptions, where: str) -> None:
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
    alive = None
    gaps: list[Tensor | None] = []
    if options.similar:
        rough, variance = importance(attention, start, 1, prefix, parameters)
        rank = rough.topk(patches, dim=1)
        removed, similarity = most_similar(evidence.keys.mean(1)[:, prefix:], rank.indices, options.similar)
        # A comparison instead of a scatter: every backend has it, and no index is written twice.
        positions = torch.arange(tokens, device=attention.device)
        gone = (removed.unsqueeze(-1) + prefix == positions).to(attention.dtype).amax(1)
        alive = (1 - gone).view(-1, 1, 1, tokens)
        start = start * alive
        gaps += [
            variance_gap(variance, parameters.variance_filter),
            relative_gap(rank.values, patches // 2),
            relative_gap(similarity, options.similar),
        ]
    scores, variance = importance(attention, start, options.iterations, prefix, parameters, alive)
    if alive is not None:
        scores = scores + (alive[:, 0, 0, prefix:] - 1)  # dead patches fall below every survivor, none is negative
    kept = keep_top_patches(scores, keep - prefix, prefix)
    gaps.append(variance_gap(variance, parameters.variance_filter))
    gaps.append(relative_gap(scores.topk(patches, dim=1).values, keep - prefix))
    known = torch.stack([gap.expand(scores.shape[0]) for gap in gaps if gap is not None])
    return Selection(kept, known.amin(0))
