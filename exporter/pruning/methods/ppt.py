"""PPT (arXiv 2310.01812): every image prunes or pools at a stage, by how peaked its significance scores are.

Both policies leave the same number of tokens, so their results are chosen between with `Where`, image by image. Between
attention and MLP; proportional attention everywhere (section 3). Written from the specification.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ...core.errors import InputError
from ..block import mean_of_heads
from ..plan import Preset, StagePlan
from . import costs
from .base import Method, Placement, Scores, Threshold
from .evidence import Evidence
from .matching import largest_reduction, match, match_tokens
from .moves import LEAST, Moves, left_out, move_matched, nearest, places_of
from .ranking import is_ahead, relative_gap
from .selection import Merge, MergeRule, Selection

PUBLISHED_THRESHOLD = 7e-5  # DeiT-S off the shelf, the only one published
PUBLISHED = Preset(
    "ppt-50",
    "ppt",
    "PPT, 50 tokens at blocks 3, 6, 9, threshold 7e-05 (published for DeiT-S at r = 50)",
    tuple(StagePlan(block, remove=50) for block in (3, 6, 9)),
    {"threshold": PUBLISHED_THRESHOLD},
)


def significance(evidence: Evidence) -> Tensor:
    """Significance of the patches as a share of its sum (section 3.1; as in ATS): [batch, patches], rows sum to 1."""
    raw = evidence.significance[:, evidence.prefix :]
    return raw / raw.sum(1, keepdim=True)


def share_variance(shares: Tensor) -> Tensor:
    """Unbiased variance [batch] of shares [batch, patches], whose mean is known."""
    patches = shares.shape[1]
    return (shares.square().sum(1) - 1 / patches) / (patches - 1)


def moves_of_both(evidence: Evidence, keep: int, threshold: float) -> tuple[Moves, Tensor]:
    """Where tokens go by comparing all pairs: images whose significance varies little pool, the others are pruned.

    Returns:
        the moves, and which images pool [batch].
    """
    keys, prefix = mean_of_heads(evidence.keys), evidence.prefix
    tokens = keys.shape[1]
    front, places = left_out(tokens, prefix), places_of(tokens, prefix, keys)
    found = nearest(keys, prefix, evidence.key_squares, evidence.logits)
    attended = evidence.attended[:, front:] if found.attended is None else found.attended
    worth = torch.where(places < prefix, LEAST, attended * evidence.lengths[:, front:])
    ahead, rank, total, squares = ranks_and_sums(found.values(), worth)
    pooled = move_matched(ahead, found.where, tokens, prefix, tokens - keep)
    pruned = torch.where(places < prefix, places, torch.where(rank < keep - prefix, prefix + rank, -1.0))
    pools = sum_variance(total, squares, tokens - prefix) < threshold
    choice = pools.unsqueeze(1)
    # onnxruntime has no Where that chooses between truth values.
    stays = (choice & pooled.stays) | (~choice & (pruned >= 0))
    return Moves(torch.where(choice, pooled.place, pruned), stays, front), pools


def ranks_and_sums(value: Tensor, worth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ranks by two scores, and sums of one, as rows of one reduction, which is one kernel.

    Args:
        value, worth: [batch, tokens].

    Returns:
        how many are ahead of a token by value and by worth [batch, tokens]; the sum of what is above 0 of worth, and
        that of its squares [batch].
    """
    tokens, above = value.shape[1], worth.clamp_min(0)
    scores = torch.stack([value, worth], dim=1).flatten(0, 1)
    ahead = is_ahead(scores).to(worth.dtype).unflatten(0, (-1, 2)).flatten(1, 2)
    sums = torch.cat([ahead, torch.stack([above, above.square()], dim=1)], dim=1).sum(2)
    return sums[:, :tokens], sums[:, tokens : 2 * tokens], sums[:, -2], sums[:, -1]


def sum_variance(total: Tensor, squares: Tensor, patches: int) -> Tensor:
    """`share_variance` [batch] of what has not been divided by its sum: by that and the sum of squares [batch]."""
    return (squares / total.square() - 1 / patches) / (patches - 1)


class PPT(Method):
    """Prune peaked images by significance, pool even ones by similarity."""

    name = "ppt"
    about = "every image drops or averages, by how peaked its significance is"
    paper = "PPT, arXiv 2310.01812, section 3"
    reads = "first"
    lengths = True
    placement = Placement(at=(0.25, 0.5, 0.75), sized_by="counts")
    threshold = Threshold(option="threshold", quantile="quantile", measures="variance")
    presets = (PUBLISHED,)

    class Parameters(Method.Parameters):
        """Parameters of PPT; `before_mlp` is the paper's place."""

        proportional: bool = Field(default=True, description="add log(size) to the attention logits")
        threshold: float = Field(
            default=PUBLISHED_THRESHOLD,
            ge=0,
            description="an image whose significance varies less than this pools, else it prunes",
        )
        quantile: float | None = Field(
            default=None,
            ge=0,
            le=1,
            description="share of the calibration images that is to pool: each stage's row gets its own threshold; "
            "null takes `threshold`",
        )
        policy: Literal["adaptive", "pool", "prune"] = Field(
            default="adaptive",
            description="adaptive is PPT; pool and prune fix the policy and drop the other branch, which is a variant",
        )

    class StageOptions(Method.StageOptions):
        """What one stage's row may say; null takes the method's parameter."""

        threshold: float | None = Field(default=None, ge=0, description="variance below which an image pools")
        policy: Literal["adaptive", "pool", "prune"] | None = Field(
            default=None, description="as the parameter, for this stage"
        )

    def score(self, evidence: Evidence, parameters: Parameters) -> Scores:
        """Significance of the patches of a block of the dense model, and its unbiased variance."""
        shares = significance(evidence)
        return Scores(shares, {"variance": share_variance(shares)})

    def statistic(self, evidence: Evidence, parameters: Parameters) -> Tensor:
        """Variance of the significance."""
        return share_variance(significance(evidence))

    def largest_removal(self, tokens: int, prefix: int, parameters: Parameters) -> int:
        """What one matching can merge."""
        return largest_reduction(tokens, prefix)

    def check_stage(
        self, before: int, keep: int, prefix: int, options: StageOptions, parameters: Parameters, where: str
    ) -> None:
        """Refuse a stage that removes more than one matching can, or whose calibrated threshold is missing."""
        super().check_stage(before, keep, prefix, options, parameters, where)
        if parameters.quantile is not None and options.threshold is None:
            raise InputError(
                f"{where} has no threshold, but parameters.quantile is set: `vitrim calibrate` writes them"
            )

    def merge_rule(self, options: StageOptions, parameters: Parameters, block: tuple[int, int]) -> MergeRule | None:
        """The pool branch averages by size."""
        return None if (options.policy or parameters.policy) == "prune" else "mean"

    def proportional(self, parameters: Parameters) -> bool:
        """As the parameter says."""
        return parameters.proportional

    def scoring_macs(self, stage: costs.StageSizes, options: StageOptions, parameters: Parameters) -> int:
        """What the policy asks for: significance unless all pool, the matching and the merge unless all prune."""
        policy = options.policy or parameters.policy
        pruned = 0 if policy == "pool" else costs.significance(stage)
        pooled = 0 if policy == "prune" else costs.matching(stage) + costs.merging(stage, "mean")
        return pruned + pooled

    def select(self, evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
        """Prune by significance or pool by similarity, each image by its variance (section 3.2).

        The order of the tokens is part of the method, as the next matching pairs by position: descending significance
        after pruning, ToMe's after pooling.
        """
        policy = options.policy or parameters.policy
        threshold = parameters.threshold if options.threshold is None else options.threshold
        prefix, reduction = evidence.prefix, evidence.keys.shape[2] - keep
        if policy == "pool":
            return match(evidence, keep, "mean")
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
        if evidence.compares:
            moves, pools = moves_of_both(evidence, keep, threshold)
            return moves.selection(keep, gap, "mean", pools)
        kept = torch.where(pools.unsqueeze(1), pooled, pruned)
        return Selection(kept, gap, Merge(merge.source, merge.target, active=pools))
