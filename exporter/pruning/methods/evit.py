"""EViT (arXiv 2202.07800): patches that the class token attends to most stay; the rest may be fused into one."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ...core.errors import InputError
from ..budget import Place
from .base import Evidence, NoStageOptions, Scores, Selection, keep_top_patches, need_attention, relative_gap

NEEDS_ATTENTION = True
CLASS_ROW_ONLY = True
StageOptions = NoStageOptions


class Parameters(BaseModel):
    """Parameters of EViT.

    Attributes:
        place: `before_mlp` is the paper's.
        fuse: sum the patches that go, weighted by their class attention as it is, into one more token, appended last
            (section 3.2); it counts among the tokens after the block.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"
    fuse: bool = False


def score(evidence: Evidence, parameters: BaseModel) -> Scores:
    """Attention of the class token to every patch, averaged over heads; without one, of all tokens."""
    return Scores(_class_attention(evidence)[:, evidence.prefix :])


def _class_attention(evidence: Evidence) -> Tensor:
    attention = need_attention(evidence)
    rows = attention[:, :, 0] if evidence.class_token else attention.mean(2)
    return rows.mean(1)


def check_stage(before: int, keep: int, prefix: int, options: BaseModel, parameters: Parameters, where: str) -> None:
    """Refuse a stage that leaves no room for a fused token.

    Raises:
        InputError: naming the row.
    """
    if parameters.fuse and keep - prefix < 2:
        raise InputError(f"{where} keeps {keep - prefix} patch; with parameters.fuse keep at least 2")


def select(evidence: Evidence, keep: int, options: BaseModel, parameters: Parameters) -> Selection:
    """Keep the patches with the largest class attention, averaged over heads (section 3.2)."""
    scores, prefix = score(evidence, parameters).importance, evidence.prefix
    count = keep - prefix - int(parameters.fuse)
    kept = keep_top_patches(scores, count, prefix)
    gap = relative_gap(scores.topk(scores.shape[1], dim=1).values, count)
    return Selection(kept, gap, fused=fuse(evidence, kept, options, parameters))


def fuse(evidence: Evidence, kept: Tensor, options: BaseModel, parameters: Parameters) -> Tensor | None:
    """Weights [batch, tokens] of the fused token: the class attention of all tokens but those at `kept`."""
    if not parameters.fuse:
        return None
    weights = _class_attention(evidence)
    positions = torch.arange(weights.shape[1], device=kept.device)
    stays = (kept.unsqueeze(2) == positions).to(weights.dtype).amax(1)
    return weights * (1 - stays)
