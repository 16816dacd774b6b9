"""Rows of a sequence of tokens by their positions, and positions by ids."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(x: Tensor, positions: Tensor) -> Tensor:
    """Rows [batch, n, width] of [batch, tokens, width] at [batch, n] positions."""
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def position_in(ids: Tensor, wanted: Tensor) -> Tensor:
    """Positions [batch, n] of `wanted` [batch, n] among `ids` [batch, tokens]; 0 for one that is not there."""
    return (ids.unsqueeze(1) == wanted.unsqueeze(2)).to(torch.uint8).argmax(2)
