"""How the tools behind published numbers count: multiply-accumulates, and what each adds to them."""

from __future__ import annotations

from collections.abc import Sequence

from vitrim.calibration.tokens.cost import Plan, model_macs
from vitrim.exporter.pruning.shape import ViTShape


def fvcore_count(shape: ViTShape, plan: Plan, final_tokens: int, scored: Sequence[int] = (), rounds: int = 5) -> int:
    """The count of the fvcore tool that Zero-TPrune's precursor printed: LayerNorm counts 5 per value.

    Args:
        plan: by block, tokens in (attention, MLP).
        final_tokens: tokens that reach the last LayerNorm.
        scored: tokens of every stage that ran PageRank, as the precursor did: over one head-averaged matrix.
        rounds: PageRank rounds per stage.
    """
    norms = sum(5 * (attention + mlp) * shape.width for attention, mlp in plan)
    votes = sum(rounds * tokens * tokens for tokens in scored)
    return model_macs(shape, plan) + norms + 5 * final_tokens * shape.width + votes


def torchprofile_count(shape: ViTShape, plan: Plan, final_tokens: int, matched: Sequence[int] = ()) -> int:
    """The count of the torchprofile tool that PPT and EViT print: LayerNorm counts 1 per value.

    Args:
        plan: by block, tokens in (attention, MLP).
        final_tokens: tokens that reach the last LayerNorm.
        matched: tokens of every stage that matched even against odd positions, as ToMe and PPT do.
    """
    norms = sum((attention + mlp) * shape.width for attention, mlp in plan) + final_tokens * shape.width
    return model_macs(shape, plan) + norms + sum((n - n // 2) * (n // 2) * shape.head_dim for n in matched)
