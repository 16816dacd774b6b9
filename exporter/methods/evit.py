"""EViT (arXiv 2202.07800) without the fused token: the patches that the class token attends to most stay."""

from __future__ import annotations

from pydantic import BaseModel

from .stage import (
    Evidence,
    NoStageOptions,
    PlaceOnly,
    Scores,
    Selection,
    keep_top_patches,
    need_attention,
    relative_gap,
)

NEEDS_ATTENTION = True
Parameters = PlaceOnly
StageOptions = NoStageOptions


def score(evidence: Evidence, parameters: BaseModel) -> Scores:
    """Attention of the class token to every patch, averaged over heads; without one, of all tokens."""
    attention = need_attention(evidence)
    rows = attention[:, :, 0] if evidence.class_token else attention.mean(2)
    return Scores(rows.mean(1)[:, evidence.prefix :])


def select(evidence: Evidence, keep: int, options: BaseModel, parameters: BaseModel) -> Selection:
    """Keep the patches with the largest class attention, averaged over heads (section 3.2)."""
    scores, prefix = score(evidence, parameters).importance, evidence.prefix
    kept = keep_top_patches(scores, keep - prefix, prefix)
    return Selection(kept, relative_gap(scores.topk(scores.shape[1], dim=1).values, keep - prefix))
