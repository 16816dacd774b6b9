"""ToMe (arXiv 2210.09461): the most similar tokens of every block are averaged, weighted by what they stand for.

Off-the-shelf use: matching on keys averaged over heads, between attention and MLP; a token of size s counts s times in
the attention that follows (proportional attention, section 3.1).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ..budget import Place
from .base import Evidence, NoStageOptions, Selection
from .matching import check_reduction, match_tokens

NEEDS_ATTENTION = False
StageOptions = NoStageOptions


class Parameters(BaseModel):
    """Parameters of ToMe.

    Attributes:
        place: `before_mlp` is the paper's.
        proportional: add log(size) to the attention logits; the paper turns it off for MAE models as they come.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"
    proportional: bool = True


def check_stage(before: int, keep: int, prefix: int, options: BaseModel, parameters: Parameters, where: str) -> None:
    """Refuse a stage that removes more than one matching can."""
    check_reduction(before, keep, prefix, where)


def merges(options: BaseModel, parameters: Parameters, block: tuple[int, int]) -> str:
    """Merged tokens are averaged by size at every stage."""
    return "mean"


def select(evidence: Evidence, keep: int, options: BaseModel, parameters: Parameters) -> Selection:
    """Merge `tokens - keep` patches into their best matches (section 3.2)."""
    reduction = evidence.keys.shape[2] - keep
    kept, merge, gap = match_tokens(evidence.keys.mean(1), evidence.prefix, reduction)
    return Selection(kept, gap, merge)
