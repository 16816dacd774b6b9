"""Halves of a model's blocks: together they are the blocks, for any number of tokens."""

from __future__ import annotations

import pytest
import torch
from helpers import small_vit

from vitrim.exporter.pruning.block import places_of, run_whole
from vitrim.exporter.pruning.parts import HALVES, Halves


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("vit_tiny_patch16_224", 1),
        ("deit_tiny_distilled_patch16_224", 1),
        ("vit_small_patch16_dinov3", 6),
        ("beit_base_patch16_224", 2),
    ],
)
def test_both_halves_of_a_block_are_the_block(name: str, least: int) -> None:
    model = small_vit(name, depth=1)
    attention, mlp = (Halves(model, half) for half in HALVES)
    assert (attention.least, mlp.least) == (least, least)
    assert attention.output_names() == ["tokens"]
    x = torch.randn(2, *attention.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = run_whole(model, 0, x, places_of(model))
        found = mlp(attention(x))
        few = mlp(attention(x[:, :least]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert few.shape == (2, least, attention.image_size[1])


def test_halves_of_all_blocks_are_in_a_row() -> None:
    model = small_vit(depth=3)
    mlp, x = Halves(model, "mlp"), torch.randn(1, 5, 48)
    with torch.inference_mode():
        wanted = x
        for block in model.blocks:
            wanted = wanted + block.mlp(block.norm2(wanted))
        torch.testing.assert_close(mlp(x), wanted)
