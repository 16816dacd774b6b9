"""A model in PyTorch behind the interface of the runtime's runners: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..core.answers import TOKENS
from .decisions import Replay
from .shape import output_of
from .whole import Deployable


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every part gets back the mode that it had."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class TorchRunner:
    """A pruned (or, with a budget without stages, dense) model behind the runner interface.

    Attributes:
        name: shown in parity tables.
        batch: images per call.
    """

    def __init__(self, pruned: Deployable, batch: int, name: str = "torch") -> None:
        self.pruned, self.batch, self.name = pruned, batch, name

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, decisions: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run [batch, 3, height, width] float32 images in evaluation mode; the model keeps the mode that it has.

        Args:
            image: the images.
            decisions: `kept_<block>` and `merged_<block>` to follow instead of deciding.

        Returns:
            logits (features without a classifier), kept_<block> and merged_<block> (int32), and gap_<block>; of a model
            that gives them, tokens, and the margin of what stands for its patches.
        """
        replay = None if decisions is None else replay_of(decisions)
        with evaluating(self.pruned):
            trace = self.pruned.trace(torch.from_numpy(np.ascontiguousarray(image)), replay)
        assert trace.logits is not None
        result = {output_of(self.pruned.model): trace.logits.numpy()}
        for name, values in ((TOKENS, trace.final), ("margin", trace.margin)):
            result |= {} if values is None else {name: values.numpy()}
        for kind in ("kept", "merged"):
            found = getattr(trace, kind).items()
            result |= {f"{kind}_{block}": ids.to(torch.int32).numpy() for block, ids in found}
        return result | {f"gap_{block}": gap.numpy() for block, gap in trace.gap.items()}


def replay_of(decisions: Mapping[str, np.ndarray]) -> Replay:
    """Decisions by output name, as a runner returns them, in the form that `PrunedViT.trace` follows."""
    parts: dict[str, dict[int, Tensor]] = {"kept": {}, "merged": {}}
    for name, ids in decisions.items():
        kind, _, block = name.partition("_")
        parts[kind][int(block)] = torch.from_numpy(np.ascontiguousarray(ids)).long()
    return Replay(**parts)
