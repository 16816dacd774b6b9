"""Models for images of another size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_vit
from safetensors.torch import save_file

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.resize import resized


def test_a_model_of_another_size_is_timm_s_own_and_shares_all_but_its_positions(tmp_path: Path) -> None:
    model = small_vit()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    args = {"img_size": [48, 80], "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7}
    again: Any = create_model("vit_tiny_patch16_224", args=args, checkpoint=tmp_path / "weights.safetensors")
    other = resized(model, (48, 80))
    images = torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(other(images), again(images))
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert (model.patch_embed.img_size, other.patch_embed.img_size) == ((64, 64), (48, 80))
    mine, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    assert {key for key, value in theirs.items() if value is not mine[key]} == {"pos_embed"}
    assert not other.training


def test_sizes_that_no_model_has_are_refused() -> None:
    model = small_vit()
    for size, words in (
        ((64, 64), "64x64 is the own size of vit_tiny_patch16_224, which is exported anyway; take it out"),
        ((40, 64), "40x64 is no whole number of patches of 16x16; give multiples"),
    ):
        with pytest.raises(InputError, match=f"^export.sizes: {words}$"):
            resized(model, size)
