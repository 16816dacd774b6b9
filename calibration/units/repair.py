"""What stays learns to say what left: least squares on the layers behind removed units, without labels or training.

The dense model runs once over the calibration images; from the second moments of what enters each projection and second
linear layer follow the weights with which the kept units say best what all of them said. vitrim's own addition to
X-Pruner: ridge regression towards the sliced weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...exporter.pruning.slim import blocks_of, head_channels
from ...exporter.pruning.widths import Widths
from ..images.sources import ImageSource, batches

RIDGE = 1e-3  # of the mean square of the inputs: what the images do not say stays as it was sliced


@torch.inference_mode()
def repair(
    dense: nn.Module,
    slimmed: nn.Module,
    widths: Widths,
    source: ImageSource,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 16,
) -> None:
    """Fit `attn.proj` and `mlp.fc2` of every narrower block, in place.

    Args:
        dense: the whole model.
        slimmed: its narrower copy; changed.
        widths: which units it kept.
        source: calibration images; more give better fits, 64 to 256 are enough.
        progress: called with (images done, images).
        batch: images a forward pass.
    """
    blocks = blocks_of(dense)
    moments: dict[nn.Linear, Tensor] = {}
    handles = []
    for block, row in zip(blocks, widths.blocks, strict=True):
        layers = [block.attn.proj] if len(row.heads) < row.heads_before else []
        layers += [block.mlp.fc2] if len(row.neurons) < row.neurons_before else []
        handles += [layer.register_forward_pre_hook(_adder(moments)) for layer in layers]
    try:
        done = 0
        for images in batches(source, batch):
            dense(torch.from_numpy(images))
            done += len(images)
            if progress:
                progress(done, len(source))
    finally:
        for handle in handles:
            handle.remove()
    for block, narrow, row in zip(blocks, blocks_of(slimmed), widths.blocks, strict=True):
        if block.attn.proj in moments:
            _fit(block.attn.proj, narrow.attn.proj, moments[block.attn.proj], head_channels(block.attn, row.heads))
        if block.mlp.fc2 in moments:
            _fit(block.mlp.fc2, narrow.mlp.fc2, moments[block.mlp.fc2], torch.tensor(row.neurons))


def _adder(moments: dict[nn.Linear, Tensor]) -> Any:
    """A hook that sums the second moments [inputs + 1, inputs + 1] of a layer's inputs and a constant 1."""

    def add(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2)
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        moment = (x.T @ x).double()
        moments[layer] = moments[layer] + moment if layer in moments else moment

    return add


def _fit(whole: nn.Linear, narrow: nn.Linear, moment: Tensor, kept: Tensor) -> None:
    """Weights of the kept inputs that come closest to the whole layer's outputs; a layer without bias gets none."""
    weight = whole.weight.double()
    if whole.bias is not None:
        weight = torch.cat([weight, whole.bias.double()[:, None]], dim=1)
        kept = torch.cat([kept, torch.tensor([whole.in_features])])
    else:
        moment = moment[:-1, :-1]
    gram, cross = moment[kept][:, kept], weight @ moment[:, kept]
    units = narrow.in_features
    ridge = torch.zeros(len(kept), dtype=torch.float64)
    ridge[:units] = RIDGE * gram.diagonal()[:units].mean()
    fitted = torch.linalg.solve(gram + ridge.diag(), (cross + weight[:, kept] * ridge).T).T
    narrow.weight.copy_(fitted[:, :units])
    if narrow.bias is not None:
        narrow.bias.copy_(fitted[:, units])
