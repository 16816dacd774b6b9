"""Zero-TPrune (arXiv 2305.17328, CVPR 2024): tokens ranked by PageRank on the attention graph, then de-duplicated.

One stage runs I' -> S -> I (the paper's section 3): one voting round ranks the patches (I'), near-duplicates of
better-ranked patches are dropped (S), and a full PageRank over the survivors keeps the best (I). All counts are
fixed, so that every shape is static: importance picks with TopK of a constant k, similarity with a constant r.

Two things go beyond the paper and can be switched off: in S a patch that matters little needs less of a duplicate
(`exponent`), and a near-duplicate hands its size to the patch that it is most alike (`hand_over`). Tokens are dropped
all the same: what stays is never averaged with what goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ...core.errors import InputError
from ..plan import Preset, StagePlan
from ..rows import rows_of
from .absorption import choice_gap
from .base import Method, Placement, Scores
from .costs import StageSizes
from .duplicates import among, best_matches, directions, duplicates, matches_by_comparison, root
from .evidence import Evidence
from .page_rank import head_weights, initial_scores, page_rank, variance_gap, weighted_sum
from .ranking import APART, best_tokens, count_ahead, relative_gap
from .selection import Merge, MergeRule, Selection

PAPER: dict[str, Any] = {"exponent": 0.0, "hand_over": False}  # without what goes beyond it


def _stage(block: int, rate: float, iterations: int) -> StagePlan:
    """A stage of the paper's default: ten patches by similarity, then the rate."""
    return StagePlan(block, keep=rate, options={"similar": 10, "iterations": iterations})


def _precursor(name: str, blocks: Sequence[int], rates: Sequence[float]) -> Preset:
    """A configuration of the method's 2022 precursor, whose FLOP counts are reproduced to the digit."""
    stages = (StagePlan(block, keep=rate, options={"iterations": 5}) for block, rate in zip(blocks, rates, strict=True))
    parameters = {"place": "after_block", "start": "uniform", "variance_filter": None, **PAPER}
    about = f"precursor of Zero-TPrune, after blocks {list(blocks)}, rates {list(rates)}; importance only"
    return Preset(f"precursor-{name}", "zero_tprune", about, tuple(stages), parameters)


PRESETS = (
    Preset(
        "zero-tprune",
        "zero_tprune",
        "the paper's default as far as it is known (its per-layer configurations are unpublished)",
        (_stage(0, 1.0, 30), _stage(2, 0.9, 5), _stage(5, 0.8, 5), _stage(8, 0.7, 1), _stage(10, 1.0, 1)),
        {"place": "after_block", **PAPER},
    ),
    _precursor("987", [2, 5, 8], [0.9, 0.8, 0.7]),
    _precursor("999", [2, 5, 8], [0.9, 0.9, 0.9]),
    _precursor("888", [2, 5, 8], [0.8, 0.8, 0.8]),
    _precursor("777", [2, 5, 8], [0.7, 0.7, 0.7]),
    _precursor("666", [2, 5, 8], [0.6, 0.6, 0.6]),
    _precursor("989999", [2, 5, 8, 9, 10, 11], [0.9, 0.8, 0.9, 0.9, 0.9, 0.9]),
    _precursor("887777", [2, 5, 8, 9, 10, 11], [0.8, 0.8, 0.7, 0.7, 0.7, 0.7]),
)


def standing(
    attention: Tensor,
    start: Tensor,
    iterations: int,
    prefix: int,
    parameters: ZeroTPrune.Parameters,
    alive: Tensor | None = None,
    removed: int = 0,
    by_head: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What ranks the tokens: PageRank per head, heads filtered (VHF) and their scores or squares summed (EIR).

    The root and the division of EIR change no rank and are left to `importance`.

    Args:
        attention: [batch, heads, tokens, tokens].
        start: [1 or batch, 1, 1, tokens].
        alive: [batch, 1, 1, tokens] of 0 and 1; None: all are.
        removed: patches that are not alive.
        by_head: whether heads are filtered and added one after the other, for TensorRT.

    Returns:
        [batch, 1, 1, tokens], 0 for removed patches; the head weights and variances [batch, heads, 1, 1], None
        without VHF.
    """
    scores = page_rank(attention, start, iterations, alive)
    values = scores if parameters.heads == "mean" else scores.square()
    if parameters.variance_filter is None:
        return values.sum(1, keepdim=True), None, None
    living = attention.shape[-1] - prefix - removed
    if by_head:
        return weighted_sum(scores, values, prefix, living, parameters.variance_filter)
    weights, variance = head_weights(scores, prefix, living, parameters.variance_filter)
    return (weights * values).sum(1, keepdim=True), weights, variance


def importance(
    attention: Tensor, start: Tensor, iterations: int, prefix: int, parameters: ZeroTPrune.Parameters
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


def smallest(gaps: Sequence[Tensor | None]) -> Tensor:
    """The smallest of several gaps [batch] or [1]; None stands for a cut that was not made."""
    return torch.stack(torch.broadcast_tensors(*(gap for gap in gaps if gap is not None))).amin(0)


class Step(NamedTuple):
    """What the similarity step decides.

    Attributes:
        kept: [batch, tokens - similar] positions of what stays, prefix tokens first.
        gone: [batch, similar] positions of near-duplicates.
        keys: [batch, tokens, dim], see `directions`.
        dead: [batch, tokens], 1 for those and 0 for what stays.
        gaps: see `Selection.gap`, by cut; None for one that was not made.
    """

    kept: Tensor
    gone: Tensor
    keys: Tensor
    dead: Tensor
    gaps: Sequence[Tensor | None]


class ZeroTPrune(Method):
    """Rank by PageRank, drop near-duplicates, rank what is left."""

    name = "zero_tprune"
    about = "attention-graph importance, after near-duplicates by key similarity are gone"
    paper = "Zero-TPrune, CVPR 2024, arXiv 2305.17328, section 3"
    reads = "all"
    orders = False
    hands_over = True
    by_similarity = True
    placement = Placement(at=(3 / 12, 6 / 12, 8 / 12, 10 / 12), similar=1.0)
    presets = PRESETS
    before: ClassVar[dict[str, dict[str, Any]]] = {"vitrim-budget/1": PAPER}

    class Parameters(Method.Parameters):
        """Parameters of Zero-TPrune; `after_block` is the paper's place."""

        start: Literal["class_token", "uniform"] = Field(
            default="class_token",
            description="initial PageRank score: class_token multiplies the class token's by sqrt(tokens) (section "
            "3.2), uniform is the paper's Zero-TPrune-uni; models without a class token always start uniform",
        )
        heads: Literal["rms", "mean"] = Field(
            default="rms", description="how heads are combined: rms is the paper's EIR, mean the plain average"
        )
        variance_filter: tuple[float, float] | None = Field(
            default=(0.01, 0.7),
            description="VHF keeps a head when the variance of its scores, scaled to mean 1, lies in this range; null "
            "keeps all heads",
        )
        exponent: float = Field(
            default=1.0,
            ge=0,
            le=4,
            description="how much importance counts in the similarity step: a patch of the worse half costs (1 - "
            "cosine to its nearest duplicate) * importance ** exponent, and the cheapest go; 0 is the paper's",
        )
        hand_over: bool = Field(
            default=True,
            description="a near-duplicate that goes hands its size to the patch it is most alike, which counts as many "
            "times in the attention that follows (log(size) on its logits); false is the paper's",
        )

    class StageOptions(Method.StageOptions):
        """What one stage's row may say."""

        similar: int = Field(
            default=0,
            ge=0,
            description="patches that the similarity step removes (r_S); the rest of the removal is by importance",
        )
        iterations: int = Field(default=5, ge=1, le=100, description="PageRank iterations of the final importance step")

    def score(self, evidence: Evidence, parameters: Parameters) -> Scores:
        """Judge a block of the dense model: full PageRank, and how many patches have a near-duplicate.

        Notes: `heads_kept`, the share of heads that pass VHF (0 or 1 everywhere means the scale is wrong), and
        `similarity`, the mean best cosine between the worse half's keys and the better half's.
        """
        attention, prefix = evidence.matrix, evidence.prefix
        tokens = attention.shape[-1]
        boost = parameters.start == "class_token" and evidence.class_token
        start = initial_scores(tokens, boost, attention)
        scores, variance = importance(attention, start, self.StageOptions().iterations, prefix, parameters)
        notes: dict[str, Tensor] = {}
        if variance is not None and parameters.variance_filter is not None:
            low, high = parameters.variance_filter
            notes["heads_kept"] = ((variance >= low) & (variance <= high)).float().mean(dim=(1, 2, 3))
        rank = scores.argsort(dim=1, descending=True) + prefix
        notes["similarity"] = best_matches(directions(evidence.keys), rank).mean(1)
        return Scores(scores, notes)

    def stage_options(self, patches: int, kept: int, similar: float, iterations: int | None) -> dict[str, Any]:
        """A share of the removal by similarity, at most half of the patches."""
        count = min(round((patches - kept) * similar), patches - patches // 2)
        # Where similarity removes all that goes, there is no second ranking.
        return {"similar": count} | ({"iterations": iterations} if iterations and count < patches - kept else {})

    def check_stage(
        self, before: int, keep: int, prefix: int, options: StageOptions, parameters: Parameters, where: str
    ) -> None:
        """Refuse a similarity count that the stage cannot remove."""
        patches = before - prefix
        limit = min(patches - patches // 2, before - keep)
        if options.similar > limit:
            raise InputError(
                f"{where}.similar is {options.similar}, but this stage removes {before - keep} of {patches} patches "
                f"and similarity may remove at most half of them; use at most {limit}"
            )

    def merge_rule(self, options: StageOptions, parameters: Parameters, block: tuple[int, int]) -> MergeRule | None:
        """Near-duplicates hand over their sizes, where that is asked for; the tokens themselves never merge."""
        return "count" if parameters.hand_over and options.similar else None

    def proportional(self, parameters: Parameters) -> bool:
        """Sizes that are handed over count."""
        return parameters.hand_over

    def scoring_macs(self, stage: StageSizes, options: StageOptions, parameters: Parameters) -> int:
        """The PageRank rounds and filters of all heads, lengths and products of keys for the S-stage and its heirs."""
        better, alone = stage.patches // 2, options.similar == stage.removed  # nothing is left for a second ranking
        rounds = (1 if options.similar else 0) + (0 if alone else options.iterations)
        filters = 0 if parameters.variance_filter is None else 2 * (bool(options.similar) + (not alone))
        pairs = stage.before + better * (stage.patches - better) if options.similar else 0
        pairs += options.similar * (stage.after - stage.prefix) if parameters.hand_over else 0
        return stage.heads * (rounds * stage.before + filters) * stage.before + pairs * stage.head_dim

    def select(self, evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
        """One stage: I' -> S -> I with fixed counts.

        Args:
            evidence: attention and keys of the block.
            keep: tokens that stay, prefix tokens included.

        Returns:
            The kept positions and the gap at the nearest of all cuts.
        """
        attention, prefix = evidence.matrix, evidence.prefix
        tokens = attention.shape[-1]
        boost = parameters.start == "class_token" and evidence.class_token
        start = initial_scores(tokens, boost, attention)
        step, alive = None, None
        if options.similar:
            step = self._without_duplicates(evidence, start, options, parameters)
            if options.similar == tokens - keep:  # nothing is left for importance to choose
                return self._handing_over(evidence, step.kept, step, parameters)
            alive = 1 - step.dead.view(-1, 1, 1, tokens)
            start = start * alive
        scores, _, variance = standing(
            attention, start, options.iterations, prefix, parameters, alive, options.similar, evidence.compares
        )
        # Dead patches fall below every survivor, as no score is negative.
        ranked = scores if alive is None else scores - (1 - alive)
        kept = best_tokens(ranked.flatten(1), keep, prefix)
        survivors = root(scores.flatten(1)[:, prefix:], parameters).sort(dim=1, descending=True).values
        gaps = [variance_gap(variance, parameters.variance_filter), relative_gap(survivors, keep - prefix)]
        if step is None:
            return Selection(kept, smallest(gaps))
        return self._handing_over(evidence, kept, step._replace(gaps=[*step.gaps, *gaps]), parameters)

    def _without_duplicates(
        self, evidence: Evidence, start: Tensor, options: StageOptions, parameters: Parameters
    ) -> Step:
        """I' and S."""
        attention, prefix, similar = evidence.matrix, evidence.prefix, options.similar
        rough, _, variance = standing(attention, start, 1, prefix, parameters, by_head=evidence.compares)
        scores = rough.flatten(1)
        keys = directions(evidence.keys)
        kept, gone, gaps = duplicates(keys, scores, prefix, similar, parameters)
        cuts = [variance_gap(variance, parameters.variance_filter), *gaps]
        tokens = scores.shape[1]
        if not evidence.compares:
            return Step(kept, gone, keys, among(gone, tokens, scores.dtype), cuts)
        match = matches_by_comparison(evidence.keys, scores, prefix, parameters)
        kept = best_tokens(match.neg(), tokens - similar, prefix)
        if parameters.hand_over:
            order = best_tokens(match.neg(), tokens, prefix)
            kept, gone = order[:, : tokens - similar], order[:, tokens - similar :]
        return Step(kept, gone, keys, (count_ahead(match) < similar).to(scores.dtype), cuts)

    def _handing_over(self, evidence: Evidence, kept: Tensor, step: Step, parameters: Parameters) -> Selection:
        """A selection in which near-duplicates hand their sizes to the most alike of what stays, if they are to."""
        if not parameters.hand_over:
            return Selection(kept, smallest(step.gaps))
        prefix, keys, keep = evidence.prefix, step.keys, kept.shape[1]
        # As in `matches_by_comparison`: prefix tokens are compared, too, where that makes the number even.
        first = 0 if evidence.compares and (keep - prefix) % 2 else prefix
        choices = torch.matmul(rows_of(keys, step.gone), rows_of(keys, kept[:, first:]).transpose(1, 2))
        if first < prefix:
            choices = torch.where(torch.arange(keep, device=keys.device) < prefix, -APART, choices)
        merge = Merge(step.gone, choices.argmax(2) + first, "count")
        return Selection(kept, smallest([*step.gaps, choice_gap(choices[:, :, prefix - first :])]), merge)
