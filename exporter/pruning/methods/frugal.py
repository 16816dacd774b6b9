"""Frugal merging, vitrim's own: patches merge where least is lost, which is where they are alike *and* matter little.

ToMe's matching (arXiv 2210.09461) pairs patches by key similarity alone, PPT (arXiv 2310.01812) chooses for a whole
image between similarity and significance. Here every pair is judged by both: a patch that merges costs
`(1 - cosine to its best match) * significance ** exponent`, and the cheapest go. Found by comparing combinations of
importance, similarity, merging and dropping on even-class photos, and measured on odd ones (benchmarks/README.md).
"""

from __future__ import annotations

from pydantic import Field

from .base import Evidence, MergeRule, Method, Placement, Scores, Selection
from .matching import largest_reduction, match
from .ppt import significance


class Frugal(Method):
    """Merge the pairs that are alike and matter little."""

    name = "frugal"
    about = "vitrim's own: patches that are alike and matter little are averaged"
    reads = "first"
    lengths = True
    # Eight blocks (3 to 10 of 12) lose a little less and cost twice the nodes.
    placement = Placement(at=(3 / 12, 5 / 12, 7 / 12, 9 / 12), sized_by="counts")
    searchable = ("exponent",)

    class Parameters(Method.Parameters):
        """Parameters of frugal merging."""

        proportional: bool = Field(
            default=True, description="add log(size) to the attention logits; without it much is lost"
        )
        exponent: float = Field(
            default=0.75, ge=0, le=4, description="how much significance counts beside similarity; 0 is ToMe's matching"
        )

    def score(self, evidence: Evidence, parameters: Parameters) -> Scores:
        """Significance of the patches of a block of the dense model."""
        return Scores(significance(evidence))

    def largest_removal(self, tokens: int, prefix: int) -> int:
        """What one matching can merge."""
        return largest_reduction(tokens, prefix)

    def merge_rule(self, options: Method.StageOptions, parameters: Parameters, block: tuple[int, int]) -> MergeRule:
        """Merged tokens are averaged by size at every stage."""
        return "mean"

    def proportional(self, parameters: Parameters) -> bool:
        """As the parameter says."""
        return parameters.proportional

    def select(self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Parameters) -> Selection:
        """Merge the `tokens - keep` patches of group A that cost least."""
        return match(evidence, keep, "mean", parameters.exponent)
