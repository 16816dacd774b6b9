"""Frugal merging, vitrim's own: patches merge where least is lost, which is where they are alike *and* matter little.

ToMe's matching (arXiv 2210.09461) pairs patches by key similarity alone, PPT (arXiv 2310.01812) chooses for a whole
image between similarity and significance. Here every pair is judged by both: a patch that merges costs
`(1 - cosine to its best match) * significance ** exponent`, and the cheapest go. Significance is the class token's
attention times the value's length, as in PPT; of a model without a class token, the mean attention of all tokens.
Found by comparing combinations on even-class photos, and measured on odd ones (benchmarks/README.md).

There are three forms. The first pairs ToMe's even and odd places by their keys and averages by size. In the second any
patch may go into any more significant one, tokens themselves are compared, and what matters more weighs more. In the
third a merged token is as long as the one that others went into, since a mean is shorter, and what later blocks add to
it would count for too much. Sizes do not count twice, as attention has them already. And what goes hands on a part of
its size: the class token looks at it less than at what stays, and would then look at it as much.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ..block import mean_of_heads
from ..plan import Preset, StagePlan
from . import costs
from .absorption import absorb, worth_of
from .base import Method, Placement, Scores
from .evidence import Evidence
from .matching import largest_reduction, match
from .ppt import significance
from .selection import MergeRule, Selection, Weighing

_PLAIN = {"length": "mean", "sized": True, "share": 0.0}


def _preset(rates: dict[int, float]) -> Preset:
    """A plan of about 0.65 of the GMACs of a model of twelve blocks and 197 tokens."""
    stages = tuple(StagePlan(block, keep=rate) for block, rate in rates.items())
    about = f"frugal at blocks {', '.join(map(str, rates))}; about 0.65 of the GMACs of DeiT or ViT"
    return Preset(f"frugal-{len(rates)}", "frugal", about, stages)


class Frugal(Method):
    """Merge patches that are alike and matter little."""

    name = "frugal"
    about = "vitrim's own: patches that are alike and matter little are averaged"
    reads = "first"
    lengths = True
    reads_tokens = True
    orders = False
    placement = Placement(at=(3 / 12, 5 / 12, 7 / 12, 9 / 12))
    searchable = ("exponent",)
    presets = (
        _preset({3: 0.77, 5: 0.73, 8: 0.68}),
        _preset(dict.fromkeys((3, 5, 7, 9), 0.772)),
        _preset(dict.fromkeys(range(3, 11), 0.857)),
    )
    before: ClassVar[dict[str, dict[str, Any]]] = {
        "vitrim-budget/1": {"pairs": "halves", "features": "keys", "weight": 0.0, **_PLAIN},  # the first form
        "vitrim-budget/2": _PLAIN,  # the second
    }

    class Parameters(Method.Parameters):
        """Parameters of frugal merging."""

        proportional: bool = Field(
            default=True, description="add log(size) to the attention logits; without it much is lost"
        )
        exponent: float = Field(
            default=0.75, ge=0, le=4, description="how much significance counts beside similarity; 0: not at all"
        )
        pairs: Literal["any", "halves"] = Field(
            default="any",
            description="any: a patch may go into any that is more significant; halves: patches at even places into "
            "those at odd ones, as in ToMe, which is the first form",
        )
        features: Literal["tokens", "keys"] = Field(
            default="tokens",
            description="what is compared: tokens, or keys averaged over heads (a third of the multiply-accumulates)",
        )
        weight: float = Field(
            default=1.0,
            ge=0,
            le=4,
            description="exponent of the significance by which a token weighs in a merge; 0: none",
        )
        sized: bool = Field(
            default=False,
            description="whether a token's size weighs in a merge, too; significance has it in it already",
        )
        length: Literal["kept", "mean"] = Field(
            default="kept",
            description="kept: a merged token is as long as the one that others went into; mean: as long as their "
            "mean, which is shorter",
        )
        share: float = Field(
            default=0.3,
            ge=0,
            le=4,
            description="exponent of a token's significance, over that of the one it goes into, by which it hands on "
            "its size; 0: all of it, as always where the classifier averages tokens",
        )

    def score(self, evidence: Evidence, parameters: Parameters) -> Scores:
        """Significance of the patches of a block of the dense model."""
        return Scores(significance(evidence))

    def largest_removal(self, tokens: int, prefix: int, parameters: Parameters) -> int:
        """All patches but one, or what one matching can merge."""
        return largest_reduction(tokens, prefix) if parameters.pairs == "halves" else tokens - prefix - 1

    def merge_rule(self, options: Method.StageOptions, parameters: Parameters, block: tuple[int, int]) -> MergeRule:
        """Merged tokens are averaged at every stage."""
        return "as_long" if parameters.length == "kept" else "mean"

    def weighing(self, evidence: Evidence, parameters: Parameters) -> Weighing:
        """By powers of their significance."""
        share = 0.0 if evidence.averaged else parameters.share
        worth = worth_of(evidence) if parameters.weight or share else None
        return Weighing(worth, parameters.weight, parameters.sized, share)

    def proportional(self, parameters: Parameters) -> bool:
        """As the parameter says."""
        return parameters.proportional

    def scoring_macs(self, stage: costs.StageSizes, options: Method.StageOptions, parameters: Parameters) -> int:
        """Significance, where it counts, the comparisons and the merge."""
        judged = parameters.exponent or parameters.weight or parameters.share or parameters.pairs == "any"
        compared = costs.absorbing if parameters.pairs == "any" else costs.matching
        dim = stage.width if parameters.features == "tokens" else stage.head_dim
        rule = self.merge_rule(options, parameters, stage.block)
        return (costs.significance(stage) if judged else 0) + compared(stage, dim) + costs.merging(stage, rule)

    def select(self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Parameters) -> Selection:
        """Merge the `tokens - keep` patches that cost least."""
        features = evidence.stream if parameters.features == "tokens" else None
        rule, weighing = self.merge_rule(options, parameters, evidence.block), self.weighing(evidence, parameters)
        if parameters.pairs == "halves":
            return match(evidence, keep, rule, parameters.exponent, features, weighing)
        features = mean_of_heads(evidence.keys) if features is None else features
        return absorb(evidence, keep, features, parameters.exponent, rule, weighing)
