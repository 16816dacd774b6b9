"""Control: the first tokens stay, `x[:, :k]`. No plan can run faster; its latency is the floor of every plan."""

from __future__ import annotations

from pydantic import BaseModel

from .base import Evidence, NoStageOptions, PlaceOnly, Selection

NEEDS_ATTENTION = False
Parameters = PlaceOnly
StageOptions = NoStageOptions


def select(evidence: Evidence, keep: int, options: BaseModel, parameters: BaseModel) -> Selection:
    """Say "the first `keep` tokens" by naming none."""
    return Selection(None)
