"""ToFu (Token Fusion, arXiv 2312.01026): ToMe's matching, early blocks drop what is matched, later ones fuse it.

The fused token points along the mean and is as long as the longest of its parts (MLERP, section 3.3). No code of the
authors was found; which blocks drop (up to half of the depth) follows a third party's reading.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Method, Placement
from .costs import StageSizes, matching, merging
from .evidence import Evidence
from .matching import largest_reduction, match
from .selection import MergeRule, Selection


class ToFu(Method):
    """Drop the most similar patches of every early block, fuse those of every later one."""

    name = "tofu"
    about = "ToMe's matching: early blocks drop what is matched, later ones fuse it"
    paper = "ToFu, WACV 2024, arXiv 2312.01026, section 3.3"
    placement = Placement(at="every block", sized_by="counts")

    class StageOptions(Method.StageOptions):
        """What one stage's row may say."""

        mode: Literal["drop", "fuse"] | None = Field(
            default=None,
            description="drop matched patches, or fuse them by MLERP; null: by the block's place in the model",
        )

    def largest_removal(self, tokens: int, prefix: int, parameters: Method.Parameters) -> int:
        """What one matching can merge."""
        return largest_reduction(tokens, prefix)

    def merge_rule(
        self, options: StageOptions, parameters: Method.Parameters, block: tuple[int, int]
    ) -> MergeRule | None:
        """MLERP in the later half of the model, nothing before, unless the row says otherwise."""
        index, depth = block
        fuses = index > depth // 2 if options.mode is None else options.mode == "fuse"
        return "longest" if fuses else None

    def scoring_macs(self, stage: StageSizes, options: StageOptions, parameters: Method.Parameters) -> int:
        """The matching, and the merge where it fuses."""
        return matching(stage) + merging(stage, self.merge_rule(options, parameters, stage.block))

    def select(self, evidence: Evidence, keep: int, options: StageOptions, parameters: Method.Parameters) -> Selection:
        """Drop or fuse `tokens - keep` patches that have a near-duplicate."""
        return match(evidence, keep, self.merge_rule(options, parameters, evidence.block))
