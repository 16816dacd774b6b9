"""ToFu (Token Fusion, arXiv 2312.01026): ToMe's matching, early blocks drop what is matched, later ones fuse it.

The fused token points along the mean and is as long as the longest of its parts (MLERP, section 3.3). No code of the
authors was found; which blocks drop (up to half of the depth) follows a third party's reading.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..budget import Place
from .base import Evidence, Selection
from .matching import check_reduction, match_tokens

NEEDS_ATTENTION = False


class Parameters(BaseModel):
    """Only the place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"


class StageOptions(BaseModel):
    """What one stage's row may say.

    Attributes:
        mode: `drop` discards matched patches, `fuse` merges them by MLERP; null: by the block's place in the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["drop", "fuse"] | None = None


def check_stage(before: int, keep: int, prefix: int, options: StageOptions, parameters: Parameters, where: str) -> None:
    """Refuse a stage that removes more than one matching can."""
    check_reduction(before, keep, prefix, where)


def merges(options: StageOptions, parameters: Parameters, block: tuple[int, int]) -> str | None:
    """MLERP in the later half of the model, nothing before, unless the row says otherwise."""
    index, depth = block
    fuses = index > depth // 2 if options.mode is None else options.mode == "fuse"
    return "longest" if fuses else None


def select(evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
    """Drop or fuse `tokens - keep` patches that have a near-duplicate."""
    reduction = evidence.keys.shape[2] - keep
    kept, merge, gap = match_tokens(evidence.keys.mean(1), evidence.prefix, reduction)
    if merges(options, parameters, evidence.block) is None:
        return Selection(kept, gap)
    return Selection(kept, gap, replace(merge, rule="longest"))
