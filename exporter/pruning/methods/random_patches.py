"""Control: patches drawn once at random, baked in as constants (the same for every image).

A random operator in the graph would not do: TensorRT ignores its seed. numpy draws, as PyTorch's exporter cannot trace
a generator.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..budget import Place
from .base import Evidence, Selection

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
    generator = np.random.default_rng((options.seed, tokens))
    chosen = np.sort(generator.permutation(tokens - prefix)[: keep - prefix]) + prefix
    return Selection(torch.tensor([*range(prefix), *chosen.tolist()]).expand(evidence.keys.shape[0], -1))
