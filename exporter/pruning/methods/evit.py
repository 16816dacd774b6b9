"""EViT (arXiv 2202.07800): patches that the class token attends to most stay; the rest may be fused into one."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from ...core.errors import InputError
from ..plan import Preset, StagePlan
from .base import Method, Scores
from .costs import StageSizes, first_row, fusing
from .evidence import Evidence
from .ranking import best_tokens, relative_gap
from .selection import Selection


def _at_thirds(rate: float) -> Preset:
    stages = tuple(StagePlan(block, keep=rate) for block in (3, 6, 9))
    return Preset(f"evit-{rate}", "evit", f"EViT, keep {rate} at blocks 3, 6, 9", stages, {"place": "before_mlp"})


def _fused(plain: Preset) -> Preset:
    about = f"{plain.about}, the rest fused into one token"
    return replace(plain, name=plain.name.replace("-", "-fused-"), about=about, parameters={"fuse": True})


PLAIN = tuple(_at_thirds(rate) for rate in (0.9, 0.8, 0.7, 0.6, 0.5))


def _class_attention(evidence: Evidence) -> Tensor:
    """[batch, tokens] attention that the class token pays, averaged over heads; without one, that all tokens pay."""
    return evidence.row.mean(1)


class EViT(Method):
    """Keep what the class token attends to."""

    name = "evit"
    about = "top-k by the class token's attention; what goes may be fused into one token"
    paper = "EViT, ICLR 2022, arXiv 2202.07800, section 3.2"
    reads = "first"
    orders = False
    rounds_up = True
    presets = PLAIN + tuple(map(_fused, PLAIN))

    class Parameters(Method.Parameters):
        """Parameters of EViT; `before_mlp` is the paper's place."""

        fuse: bool = Field(
            default=False,
            description="sum the patches that go, weighted by their class attention as it is, into one more token, "
            "appended last (section 3.2); it counts among the tokens after the block",
        )

    def score(self, evidence: Evidence, parameters: Parameters) -> Scores:
        """Attention of the class token to every patch, averaged over heads; without one, of all tokens."""
        return Scores(_class_attention(evidence)[:, evidence.prefix :])

    def check_stage(
        self,
        before: int,
        keep: int,
        prefix: int,
        options: Method.StageOptions,
        parameters: Parameters,
        where: str,
    ) -> None:
        """Refuse a stage that leaves no room for a fused token."""
        if parameters.fuse and keep - prefix < 2:
            raise InputError(f"{where} keeps {keep - prefix} patch; with parameters.fuse keep at least 2")

    def fuses(self, parameters: Parameters) -> bool:
        """As the parameter says."""
        return parameters.fuse

    def fuse(
        self, evidence: Evidence, kept: Tensor, options: Method.StageOptions, parameters: Parameters
    ) -> Tensor | None:
        """The class attention of all tokens but those at `kept`."""
        if not parameters.fuse:
            return None
        weights = _class_attention(evidence)
        positions = torch.arange(weights.shape[1], device=kept.device)
        stays = (kept.unsqueeze(2) == positions).to(weights.dtype).amax(1)
        return weights * (1 - stays)

    def scoring_macs(self, stage: StageSizes, options: Method.StageOptions, parameters: Parameters) -> int:
        """The class token's row, and the fused token."""
        return first_row(stage) + (fusing(stage) if parameters.fuse else 0)

    def select(self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Parameters) -> Selection:
        """Keep the patches with the largest class attention, averaged over heads (section 3.2)."""
        scores, prefix = _class_attention(evidence), evidence.prefix
        count = keep - prefix - int(parameters.fuse)
        kept = best_tokens(scores, prefix + count, prefix)
        gap = relative_gap(scores[:, prefix:].sort(dim=1, descending=True).values, count)
        return Selection(kept, gap, fused=self.fuse(evidence, kept, options, parameters))
