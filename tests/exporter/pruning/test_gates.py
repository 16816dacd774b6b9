"""Factors on heads and neurons: what they multiply, for how long, and that gradients reach them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import small_swin, small_vit

from vitrim.exporter.pruning.gates import Gates, gated
from vitrim.exporter.pruning.slim import parts_of
from vitrim.exporter.pruning.units import blocks_of


def images_for(model: Any, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(5))


def draw_gates(model: Any, seed: int = 0) -> Gates:
    """Factors from 0 to 1, one a unit."""
    draw, parts = torch.Generator().manual_seed(seed), parts_of(model)
    return Gates(
        [torch.rand(part.heads, generator=draw) for part in parts],
        [torch.rand(part.neurons, generator=draw) for part in parts],
    )


def hooks(model: Any) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_a_gate_is_a_factor_on_the_columns_of_the_next_layer(make: Any) -> None:
    model = make()
    images, gates = images_for(model), draw_gates(model)
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for block, heads, neurons in zip(blocks_of(scaled), gates.heads, gates.neurons, strict=True):
            weight = block.attn.proj.weight
            size = weight.shape[1] // len(heads)
            for column in range(weight.shape[1]):
                weight[:, column] *= heads[column // size]
            for column in range(block.mlp.fc2.weight.shape[1]):
                block.mlp.fc2.weight[:, column] *= neurons[column]
        expected, dense = scaled(images), model(images)
        with gated(blocks_of(model), gates):
            found = model(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - dense).abs().max() > 1e-2


def test_gates_by_image_reach_their_own_image_only() -> None:
    """Swin's windows stand in the batch dimension, so a factor of an image has to find all its windows."""
    for model in (small_vit(), small_swin()):
        images, parts = images_for(model, 3), parts_of(model)
        draw = torch.Generator().manual_seed(0)
        gates = Gates(
            [torch.rand(3, part.heads, generator=draw) for part in parts],
            [torch.rand(3, part.neurons, generator=draw) for part in parts],
        )
        with torch.inference_mode():
            with gated(blocks_of(model), gates):
                together = model(images)
            for index in range(3):
                own = Gates([gate[index] for gate in gates.heads], [gate[index] for gate in gates.neurons])
                with gated(blocks_of(model), own):
                    alone = model(images[index : index + 1])
                torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=0)


def test_gates_of_1_change_nothing() -> None:
    model = small_vit()
    images, parts = images_for(model), parts_of(model)
    ones = Gates([torch.ones(part.heads) for part in parts], [torch.ones(2, part.neurons) for part in parts])
    with torch.inference_mode(), gated(blocks_of(model), ones):
        found = model(images)
    with torch.inference_mode():
        assert torch.equal(found, model(images))


def test_gradients_are_those_of_finite_differences() -> None:
    model = small_vit(depth=2).double()
    images = images_for(model).double()
    drawn = draw_gates(model)
    leaves = [gate.double().requires_grad_(True) for gate in (*drawn.heads, *drawn.neurons)]
    gates = Gates(leaves[:2], leaves[2:])

    def loss() -> torch.Tensor:
        with gated(blocks_of(model), gates):
            return model(images).square().sum()

    loss().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        with torch.no_grad():
            leaf[0] += 1e-6
            more = float(loss())
            leaf[0] -= 2e-6
            less = float(loss())
            leaf[0] += 1e-6
        assert float(leaf.grad[0]) == pytest.approx((more - less) / 2e-6, rel=1e-4)


def test_no_hook_is_left_whatever_happens() -> None:
    model = small_vit()
    gates = draw_gates(model)
    with gated(blocks_of(model), gates):
        assert hooks(model) == 8  # two a block
    assert hooks(model) == 0
    with pytest.raises(KeyError, match="inside"), gated(blocks_of(model), gates):
        raise KeyError("inside")
    assert hooks(model) == 0
    with pytest.raises(ValueError, match="zip"), gated(blocks_of(model), Gates(gates.heads[:3], gates.neurons)):
        pass
    assert hooks(model) == 0
