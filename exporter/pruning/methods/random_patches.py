"""Control: patches drawn once at random, baked in as constants (the same for every image).

A random operator in the graph would not do: TensorRT ignores its seed. numpy draws, as PyTorch's exporter cannot trace
a generator.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from .base import Method
from .evidence import Evidence
from .selection import Selection


class Random(Method):
    """Keep patches drawn at random."""

    name = "random"
    about = "control: the same number of tokens, drawn once at random"

    class StageOptions(Method.StageOptions):
        """What one stage's row may say."""

        seed: int = Field(default=0, ge=0, description="of the stage's draw")

    def select(self, evidence: Evidence, keep: int, options: StageOptions, parameters: Method.Parameters) -> Selection:
        """Keep `keep - prefix` patches of a permutation that depends on the seed and the token count only."""
        tokens, prefix = evidence.keys.shape[2], evidence.prefix
        generator = np.random.default_rng((options.seed, tokens))
        chosen = np.sort(generator.permutation(tokens - prefix)[: keep - prefix]) + prefix
        return Selection(torch.tensor([*range(prefix), *chosen.tolist()]).expand(evidence.keys.shape[0], -1))
