"""What a precision has to keep of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...core.answers import LOGITS, Task


@dataclass(frozen=True)
class Judge:
    """Judges a graph in another precision by its answers on images that the float32 graph and the dense model saw.

    A pruned graph that keeps other tokens in another precision changes some answers that the dense model does not
    share, and gets as many of its answers back as it loses. So what counts are the dense model's answers, where they
    are known; decisions and numbers are held against PyTorch's by parity.

    Attributes:
        float32: [n, classes] logits of the float32 graph, or features [n, width].
        wanted: least share to keep.
        dense: those of the dense model on the same images; None: the float32 graph's answers count.
        task: what the answers are.
    """

    float32: np.ndarray
    wanted: float
    dense: np.ndarray | None = None
    task: Task = LOGITS

    @cached_property
    def _shared(self) -> float:
        """Expected share of images on which float32 has the dense model's answer; 1 without one."""
        return 1.0 if self.dense is None else self.task.expected(self.dense, self.float32)

    def kept(self, outputs: np.ndarray) -> float:
        """Expected share of images with the answer that counts, over the share in float32, at most 1.

        Expected of images like these, see `expected_agreement`: what is counted on them would depend on the few that
        turn.

        Args:
            outputs: [n, classes] of the graph on the same images.
        """
        answers = self.float32 if self.dense is None else self.dense
        return min(self.task.expected(answers, outputs) / self._shared, 1.0) if self._shared else 1.0

    def holds(self, outputs: np.ndarray) -> bool:
        """Whether as much is kept as is wanted."""
        return self.kept(outputs) >= self.wanted
