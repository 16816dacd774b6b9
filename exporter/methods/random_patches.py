"""Control: patches drawn once at random, baked in as constants (the same for every image).

A random operator in the graph would not do: TensorRT ignores its seed.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field

from ..budget import Place
from .stage import Evidence, Selection

NEEDS_ATTENTION = False


class Parameters(BaseModel):
    """Only the place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"


class StageOptions(BaseModel):
    """The seed of one stage's draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)


def select(evidence: Evidence, keep: int, options: StageOptions, parameters: Parameters) -> Selection:
    """Keep `keep - prefix` patches of a permutation that depends on the seed and the token count only."""
    tokens, prefix = evidence.keys.shape[2], evidence.prefix
    generator = torch.Generator().manual_seed(options.seed * 65537 + tokens)
    chosen = torch.randperm(tokens - prefix, generator=generator)[: keep - prefix].sort().values + prefix
    return Selection(torch.cat([torch.arange(prefix), chosen]).expand(evidence.keys.shape[0], -1))
