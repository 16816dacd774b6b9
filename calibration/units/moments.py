"""Second moments of what enters every projection and second linear layer: repair and redundancy are read from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...exporter.pruning.slim import head_channels
from ...exporter.pruning.units import attention_of, blocks_of
from ...exporter.pruning.widths import Widths
from ..images.reading import batches
from ..images.sources import ImageSource

RIDGE = 1e-3  # of the mean square of the inputs: what the images do not say stays as it was


@dataclass(frozen=True)
class Moments:
    """Sums over all tokens of all images, in float64; the last input of a layer with a bias is a constant 1.

    Attributes:
        heads: by block, [inputs, inputs] of `attn.proj`; [0, 0] where its heads cannot leave.
        neurons: by block, [inputs, inputs] of `mlp.fc2`.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]

    def of_kept(self, model: nn.Module, widths: Widths) -> Moments:
        """Those of the inputs that a narrower copy keeps.

        Args:
            model: the whole model, which the moments are of.
            widths: what the copy keeps.
        """
        heads, neurons = [], []
        for index, (block, row) in enumerate(zip(blocks_of(model), widths.blocks, strict=True)):
            units = with_constant(torch.tensor(row.neurons), block.mlp.fc2)
            whole = self.heads[index]
            if row.heads_before:
                channels = with_constant(head_channels(block.attn, row.heads), block.attn.proj)
                whole = whole[channels][:, channels]
            heads.append(whole)
            neurons.append(self.neurons[index][units][:, units])
        return Moments(tuple(heads), tuple(neurons))


@torch.inference_mode()
def second_moments(
    model: nn.Module,
    source: ImageSource,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 16,
) -> Moments:
    """Run a model over images and sum the products of all pairs of inputs.

    Args:
        model: a slimmable model in eval mode.
        source: calibration images; 64 to 256 are enough.
        progress: called with (images done, images).
        batch: images a forward pass.
    """
    blocks = blocks_of(model)
    projections = [None if (attn := attention_of(block)) is None else attn.proj for block in blocks]
    layers = [layer for layer in projections if layer is not None] + [block.mlp.fc2 for block in blocks]
    sums: dict[nn.Linear, Tensor] = {}
    handles = [layer.register_forward_pre_hook(_adder(sums)) for layer in layers]
    try:
        done = 0
        for images in batches(source, batch):
            model(torch.from_numpy(images))
            done += len(images)
            if progress:
                progress(done, len(source))
    finally:
        for handle in handles:
            handle.remove()
    nothing = torch.zeros(0, 0, dtype=torch.float64)
    heads = tuple(nothing if layer is None else sums[layer] for layer in projections)
    return Moments(heads, tuple(sums[block.mlp.fc2] for block in blocks))


def _adder(sums: dict[nn.Linear, Tensor]) -> Any:
    """A hook that adds the second moments of a layer's inputs to the layer's sum."""

    def add(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2)
        if layer.bias is not None:
            x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        moment = (x.T @ x).double()
        sums[layer] = sums[layer] + moment if layer in sums else moment

    return add


def with_bias(layer: nn.Linear) -> Tensor:
    """Weights [outputs, inputs], in float64, with the bias as the last column where there is one."""
    weight = layer.weight.double()
    return weight if layer.bias is None else torch.cat([weight, layer.bias.double()[:, None]], dim=1)


def with_constant(inputs: Tensor, layer: nn.Linear) -> Tensor:
    """Indices of some of a layer's inputs, with the constant's where the layer has a bias."""
    return inputs if layer.bias is None else torch.cat([inputs, torch.tensor([layer.in_features])])


def ridge(moment: Tensor, inputs: int) -> Tensor:
    """What is added to a moment's diagonal: the same for all inputs, nothing for the constant."""
    added = torch.zeros(len(moment), dtype=moment.dtype)
    added[:inputs] = RIDGE * moment.diagonal()[:inputs].mean()
    return added
