"""Control: evenly spaced patches, the same for every image; constant indices cost a plain Gather."""

from __future__ import annotations

import torch

from .base import Method
from .evidence import Evidence
from .selection import Selection


class Uniform(Method):
    """Keep evenly spaced patches."""

    name = "uniform"
    about = "control: evenly spaced patches"

    def select(
        self, evidence: Evidence, keep: int, options: Method.StageOptions, parameters: Method.Parameters
    ) -> Selection:
        """Keep patches floor((i + 0.5) * patches / k) for i = 0 .. k-1."""
        tokens, prefix = evidence.keys.shape[2], evidence.prefix
        patches, count = tokens - prefix, keep - prefix
        chosen = [int((i + 0.5) * patches / count) + prefix for i in range(count)]
        return Selection(torch.tensor([*range(prefix), *chosen]).expand(evidence.keys.shape[0], -1))
