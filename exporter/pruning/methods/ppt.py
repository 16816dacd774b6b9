"""PPT (arXiv 2310.01812): every image prunes or pools at a stage, by how peaked its significance scores are.

Both policies leave the same number of tokens, so their results are chosen between with `Where`, image by image. Between
attention and MLP; proportional attention everywhere (section 3). Written from the specification.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ...core.errors import InputError
from ..budget import Place
from .base import Evidence, Merge, Scores, Selection, need_attention, relative_gap
from .matching import check_reduction, match_tokens

NEEDS_ATTENTION = True
CLASS_ROW_ONLY = True
PUBLISHED_THRESHOLD = 7e-5  # DeiT-S off the shelf, the only one published


class Parameters(BaseModel):
    """Parameters that hold for all stages.

    Attributes:
        place: `before_mlp` is the paper's.
        proportional: add log(size) to the attention logits.
        threshold: an image whose significance varies less than this pools, else it prunes.
        quantile: share of the calibration images that is to pool: each stage's row gets its own threshold; null takes
            `threshold`.
        policy: `adaptive` is PPT; `pool` and `prune` fix the policy and drop the other branch, which is a variant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"
    proportional: bool = True
    threshold: float = Field(default=PUBLISHED_THRESHOLD, ge=0)
    quantile: float | None = Field(default=None, ge=0, le=1)
    policy: Literal["adaptive", "pool", "prune"] = "adaptive"


class StageOptions(BaseModel):
    """What one stage's row may say; null takes the method's parameter.

    Attributes:
        threshold: variance below which an image pools.
        policy: as in `Parameters`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None = Field(default=None, ge=0)
    policy: Literal["adaptive", "pool", "prune"] | None = None


def significance(evidence: Evidence) -> Tensor:
    """Class attention times value norm, as a share of its sum (section 3.1; as in ATS).

    Without a class token, the attention of all tokens stands in for its row.

    Returns:
        [batch, patches], rows sum to 1.
    """
    attention, prefix = need_attention(evidence), evidence.prefix
    row = attention[:, :, 0] if evidence.class_token else attention.mean(2)
    length = evidence.values.transpose(1, 2).flatten(2).norm(dim=-1)  # over all heads, as the tokens lie in memory
    raw = (row.sum(1) * length)[:, prefix:]
    return raw / raw.sum(1, keepdim=True)


def share_variance(shares: Tensor) -> Tensor:
    """Unbiased variance [batch] of shares [batch, patches], whose mean is known."""
    patches = shares.shape[1]
    return (shares.square().sum(1) - 1 / patches) / (patches - 1)


def score(evidence: Evidence, parameters: Parameters) -> Scores:
    """Significance of the patches of a block of the dense model, and its unbiased variance."""
    shares = significance(evidence)
    return Scores(shares, {"variance": share_variance(shares)})


def check_stage(before: int, keep: int, prefix: int, options: StageOptions, parameters: Parameters, where: str) -> None:
    """Refuse a stage that removes more than one matching can, or whose calibrated threshold is missing."""
    check_reduction(before, keep, prefix, where)
    if parameters.quantile is not None and options.threshold is None:
        raise InputError(f"{where} has no threshold, but parameters.quantile is set: `vitrim calibrate` writes them")


def merges(options: StageOptions, parameters: Parameters, block: tuple[int, int]) -> str | None:
    """The pool branch averages by size."""
    return None if (options.policy or parameters.policy) == "prune" else "mean"


def select(evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
    """Prune by significance or pool by similarity, each image by its variance (section 3.2).

    The order of the tokens is part of the method, as the next matching pairs by position: descending significance
    after pruning, ToMe's after pooling.
    """
    policy = options.policy or parameters.policy
    threshold = parameters.threshold if options.threshold is None else options.threshold
    prefix, reduction = evidence.prefix, evidence.keys.shape[2] - keep
    if policy == "pool":
        pooled, merge, gap = match_tokens(evidence.keys.mean(1), prefix, reduction)
        return Selection(pooled, gap, merge)
    shares = significance(evidence)
    best = shares.topk(keep - prefix, dim=1).indices + prefix
    pruned = torch.cat([torch.arange(prefix, device=best.device).expand(best.shape[0], -1), best], dim=1)
    ranked = shares.sort(dim=1, descending=True).values
    prune_gap = relative_gap(ranked, keep - prefix)
    if policy == "prune":
        return Selection(pruned, prune_gap)
    pooled, merge, pool_gap = match_tokens(evidence.keys.mean(1), prefix, reduction)
    variance = share_variance(shares)
    pools = variance < threshold
    policy_gap = (variance - threshold).abs() / variance.clamp_min(1e-30)
    gap = torch.minimum(torch.where(pools, pool_gap, prune_gap), policy_gap)
    kept = torch.where(pools.unsqueeze(1), pooled, pruned)
    return Selection(kept, gap, Merge(merge.source, merge.target, active=pools))
