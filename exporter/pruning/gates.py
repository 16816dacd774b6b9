"""Factors on the outputs of heads and MLP neurons, while a context lasts: what masks, scores and proofs share.

Forward pre-hooks on a block's last linear layers; the model's code and weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Gates:
    """One factor a unit.

    Attributes:
        heads: by block, [heads] or [batch, heads]; none of a block whose heads cannot leave.
        neurons: by block, [neurons] or [batch, neurons].
    """

    heads: Sequence[Tensor]
    neurons: Sequence[Tensor]


@contextmanager
def gated(blocks: Sequence[Any], gates: Gates) -> Iterator[None]:
    """Multiply every head's output (before the projection) and every neuron's (before the second linear layer).

    Args:
        blocks: timm blocks with `mlp.fc2`, and `attn.proj` where they have gates of heads, in the order of the gates.
        gates: factors; gradients flow to them.
    """
    handles = []
    try:
        for block, heads, neurons in zip(blocks, gates.heads, gates.neurons, strict=True):
            if heads.shape[-1]:
                handles.append(block.attn.proj.register_forward_pre_hook(_times(heads)))
            handles.append(block.mlp.fc2.register_forward_pre_hook(_times(neurons)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _times(factors: Tensor) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = inputs
        units = x.unflatten(-1, (factors.shape[-1], -1))  # [rows, tokens, units, channels of one unit]
        if factors.ndim == 1:
            return ((units * factors.view(-1, 1)).flatten(-2),)
        # Windows of one image stand together, so a factor of an image counts for as many rows.
        rows = factors.repeat_interleave(len(x) // len(factors), dim=0)
        return ((units * rows.view(len(x), *(1,) * (x.ndim - 2), -1, 1)).flatten(-2),)

    return hook
