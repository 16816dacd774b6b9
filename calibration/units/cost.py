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
from ...exporter.pruning.widths import Widths

Quantity = Literal["macs", "parameters"]


@dataclass(frozen=True)
class UnitCost:
    """One quantity, as a fixed part and a price for every head and neuron.

    Attributes:
        fixed: what no width changes.
        head, neuron: by block, the price of one.
        heads, neurons: by block, how many the whole model has.
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
    bare = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bare(torch.empty(1, *image_size(model), device="meta"))
    return counter.get_total_flops() // 2


def unit_cost(model: nn.Module, quantity: Quantity) -> UnitCost:
    """Prices of a model's units; METHODS of X-Pruner count them as the sum over kept channels.

    Raises:
        UnsupportedError: the model cannot be slimmed.
    """
    parts = parts_of(model)
    if quantity == "macs":
        whole = count_macs(model)
        head, neuron = [part.head_macs for part in parts], [part.neuron_macs for part in parts]
    else:
        whole = sum(parameter.numel() for parameter in model.parameters())
        head, neuron = [part.head_parameters for part in parts], [part.neuron_parameters for part in parts]
    heads, neurons = tuple(part.heads for part in parts), tuple(part.neurons for part in parts)
    units = int(np.dot(head, heads) + np.dot(neuron, neurons))
    return UnitCost(whole - units, tuple(head), tuple(neuron), heads, neurons)


def costs_of(model: nn.Module, widths: Widths) -> dict[str, tuple[float, float]]:
    """`gmacs` (1e9) and `parameters`, each dense and slimmed, for `widths.json`."""
    macs, parameters = unit_cost(model, "macs"), unit_cost(model, "parameters")
    return {
        "gmacs": (macs.dense / 1e9, macs.of(widths.heads, widths.neurons) / 1e9),
        "parameters": (parameters.dense, parameters.of(widths.heads, widths.neurons)),
    }
