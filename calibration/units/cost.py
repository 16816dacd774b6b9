"""What heads and MLP neurons cost: multiply-accumulates and parameters of a model of given widths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...exporter.pruning.shape import image_size
from ...exporter.pruning.slim import parts_of
from ...exporter.pruning.units import attention_of, blocks_of
from ...exporter.pruning.widths import Widths

Quantity = Literal["macs", "parameters"]


@dataclass(frozen=True)
class UnitCost:
    """One quantity, as a fixed part and a price for every head and neuron.

    Attributes:
        fixed: what no width changes.
        head, neuron: by block, the price of one.
        heads, neurons: by block, how many of the whole model's can leave.
    """

    fixed: int
    head: tuple[int, ...]
    neuron: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @property
    def dense(self) -> int:
        """Of the whole model."""
        return int(self.of(self.heads, self.neurons))

    def of(self, heads: Sequence[Any], neurons: Sequence[Any]) -> Any:
        """Of a model with so many heads and neurons per block: numbers, or tensors of soft widths."""
        return self.fixed + sum(
            price_head * head + price_neuron * neuron
            for price_head, head, price_neuron, neuron in zip(self.head, heads, self.neuron, neurons, strict=True)
        )


def count_macs(model: nn.Module) -> int:
    """Multiply-accumulates of one image, counted by PyTorch over a forward pass without data."""
    return _count(copy.deepcopy(model).to("meta"))


def _count(bare: nn.Module) -> int:
    """That of a model on PyTorch's device without memory."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bare(torch.empty(1, *image_size(bare), device="meta"))
    return counter.get_total_flops() // 2


def unit_macs(model: nn.Module) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Multiply-accumulates of one image: of the model, and by block of one head and of one neuron.

    What enters a block's last linear layers is seen on the way: rows of a projection stand in sequences, in which all
    rows see all others.
    """
    bare = copy.deepcopy(model).to("meta")
    blocks = blocks_of(bare)
    seen: dict[nn.Module, list[torch.Size]] = {}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.setdefault(layer, []).append(inputs[0].shape)

    for block in blocks:
        attn = attention_of(block)
        for layer in (block.mlp.fc2, *(() if attn is None else (attn.proj,))):
            layer.register_forward_pre_hook(note)
    whole = _count(bare)

    def neuron(block: Any) -> int:
        fc1, fc2 = block.mlp.fc1, block.mlp.fc2
        return sum(shape[:-1].numel() for shape in seen[fc2]) * (fc1.in_features + fc2.out_features)

    def head(block: Any) -> int:
        attn = attention_of(block)
        if attn is None:
            return 0
        size = attn.qkv.out_features // 3 // attn.num_heads
        weights = size * (3 * attn.qkv.in_features + attn.proj.out_features)
        return sum(shape[:-1].numel() * (weights + 2 * shape[-2] * size) for shape in seen[attn.proj])

    return whole, tuple(map(head, blocks)), tuple(map(neuron, blocks))


def unit_cost(model: nn.Module, quantity: Quantity) -> UnitCost:
    """Prices of a model's units; METHODS of X-Pruner count them as the sum over kept channels.

    Raises:
        UnsupportedError: the model cannot be slimmed.
    """
    parts = parts_of(model)
    if quantity == "macs":
        whole, head, neuron = unit_macs(model)
    else:
        whole = sum(parameter.numel() for parameter in model.parameters())
        head, neuron = tuple(part.head_parameters for part in parts), tuple(part.neuron_parameters for part in parts)
    heads, neurons = tuple(part.heads for part in parts), tuple(part.neurons for part in parts)
    units = int(np.dot(head, heads) + np.dot(neuron, neurons))
    return UnitCost(whole - units, head, neuron, heads, neurons)


def costs_of(model: nn.Module, widths: Widths) -> dict[str, tuple[float, float]]:
    """`gmacs` (1e9) and `parameters`, each dense and slimmed, for `widths.json`."""
    macs, parameters = unit_cost(model, "macs"), unit_cost(model, "parameters")
    return {
        "gmacs": (macs.dense / 1e9, macs.of(widths.heads, widths.neurons) / 1e9),
        "parameters": (parameters.dense, parameters.of(widths.heads, widths.neurons)),
    }
