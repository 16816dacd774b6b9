"""ToMe (arXiv 2210.09461): the most similar tokens of every block are averaged, weighted by what they stand for.

Off-the-shelf use: matching on keys averaged over heads, between attention and MLP; a token of size s counts s times in
the attention that follows (proportional attention, section 3.1).
"""

from __future__ import annotations

from pydantic import Field

from ..plan import Preset, StagePlan
from .base import Method, Placement
from .costs import StageSizes, matching, merging
from .evidence import Evidence
from .matching import largest_reduction, match
from .selection import MergeRule, Selection


def _in_every_block(remove: int) -> Preset:
    stages = tuple(StagePlan(block, remove=remove) for block in range(12))
    return Preset(f"tome-{remove}", "tome", f"ToMe, {remove} tokens in every block", stages)


class ToMe(Method):
    """Merge the most similar pairs of every block."""

    name = "tome"
    about = "the most similar tokens are averaged"
    paper = "ToMe, ICLR 2023, arXiv 2210.09461, section 3"
    placement = Placement(at="every block", sized_by="counts")
    presets = tuple(_in_every_block(remove) for remove in (8, 11, 13, 16))

    class Parameters(Method.Parameters):
        """Parameters of ToMe; `before_mlp` is the paper's place."""

        proportional: bool = Field(
            default=True,
            description="add log(size) to the attention logits; the paper turns it off for MAE models as they come",
        )

    def largest_removal(self, tokens: int, prefix: int, parameters: Parameters) -> int:
        """What one matching can merge."""
        return largest_reduction(tokens, prefix)

    def merge_rule(self, options: Method.StageOptions, parameters: Parameters, block: tuple[int, int]) -> MergeRule:
        """Merged tokens are averaged by size at every stage."""
        return "mean"

    def proportional(self, parameters: Parameters) -> bool:
        """As the parameter says."""
        return parameters.proportional

    def scoring_macs(self, stage: StageSizes, options: Method.StageOptions, parameters: Parameters) -> int:
        """The matching and the merge."""
        return matching(stage) + merging(stage, "mean")

    def select(self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Parameters) -> Selection:
        """Merge `tokens - keep` patches into their best matches (section 3.2)."""
        return match(evidence, keep, "mean")
