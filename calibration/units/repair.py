"""What stays learns to say what left: least squares on the layers behind removed units, without labels or training.

From the second moments of what enters each projection and second linear layer of the dense model follow the weights
with which the kept units say best what all of them said. vitrim's own addition to X-Pruner: ridge regression towards
the sliced weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...exporter.pruning.slim import head_channels
from ...exporter.pruning.units import blocks_of
from ...exporter.pruning.widths import Widths
from .moments import Moments, ridge, with_bias, with_constant


@torch.inference_mode()
def repair(dense: nn.Module, slimmed: nn.Module, widths: Widths, moments: Moments) -> None:
    """Fit `attn.proj` and `mlp.fc2` of every narrower block, in place.

    Args:
        dense: the whole model.
        slimmed: its narrower copy; changed.
        widths: which units it kept.
        moments: of the dense model.
    """
    for index, (block, narrow, row) in enumerate(zip(blocks_of(dense), blocks_of(slimmed), widths.blocks, strict=True)):
        if len(row.heads) < row.heads_before:
            kept = head_channels(block.attn, row.heads)
            _fit(block.attn.proj, narrow.attn.proj, moments.heads[index], kept)
        if len(row.neurons) < row.neurons_before:
            _fit(block.mlp.fc2, narrow.mlp.fc2, moments.neurons[index], torch.tensor(row.neurons))


def _fit(whole: nn.Linear, narrow: nn.Linear, moment: Tensor, inputs: Tensor) -> None:
    """Weights of the kept inputs that come closest to the whole layer's outputs; a layer without bias gets none."""
    weight, kept = with_bias(whole), with_constant(inputs, whole)
    gram, cross = moment[kept][:, kept], weight @ moment[:, kept]
    added = ridge(gram, len(inputs))
    fitted = torch.linalg.solve(gram + added.diag(), (cross + weight[:, kept] * added).T).T
    narrow.weight.copy_(fitted[:, : len(inputs)])
    if narrow.bias is not None:
        narrow.bias.copy_(fitted[:, len(inputs)])
