"""Frugal merging, vitrim's own: patches merge where least is lost, which is where they are alike *and* matter little.

ToMe's matching (arXiv 2210.09461) pairs patches by key similarity alone, PPT (arXiv 2310.01812) chooses for a whole
image between similarity and significance. Here every pair is judged by both: a patch that merges costs
`(1 - cosine to its best match) * significance ** exponent`, and the cheapest go. Found by comparing combinations of
importance, similarity, merging and dropping on even-class photos, and measured on odd ones (benchmarks/README.md).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..budget import Place
from .base import Evidence, NoStageOptions, Scores, Selection
from .matching import check_reduction, match_tokens
from .ppt import significance

NEEDS_ATTENTION = True
CLASS_ROW_ONLY = True
StageOptions = NoStageOptions


class Parameters(BaseModel):
    """Parameters of frugal merging.

    Attributes:
        place: where in a block tokens merge.
        proportional: add log(size) to the attention logits; without it much is lost.
        exponent: how much significance counts beside similarity; 0 is ToMe's matching.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"
    proportional: bool = True
    exponent: float = Field(default=0.75, ge=0, le=4)


def score(evidence: Evidence, parameters: Parameters) -> Scores:
    """Significance of the patches of a block of the dense model."""
    return Scores(significance(evidence))


def check_stage(before: int, keep: int, prefix: int, options: BaseModel, parameters: Parameters, where: str) -> None:
    """Refuse a stage that removes more than one matching can."""
    check_reduction(before, keep, prefix, where)


def merges(options: BaseModel, parameters: Parameters, block: tuple[int, int]) -> str:
    """Merged tokens are averaged by size at every stage."""
    return "mean"


def select(evidence: Evidence, keep: int, options: BaseModel, parameters: Parameters) -> Selection:
    """Merge the `tokens - keep` patches of group A that cost least."""
    weights = significance(evidence) ** parameters.exponent if parameters.exponent else None
    reduction = evidence.keys.shape[2] - keep
    kept, merge, gap = match_tokens(evidence.keys.mean(1), evidence.prefix, reduction, weights)
    return Selection(kept, gap, merge)
