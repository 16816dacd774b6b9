"""Training the quickstart model: what it is fed, how it starts, how it is judged, and the file that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors import safe_open

from vitrim.calibration.images.generated import make_images
from vitrim.exporter.pruning.load import create_model
from vitrim.recipes.quickstart import MODEL_ARGS, MODEL_NAME, train
from vitrim.recipes.quickstart.train import HARD_CONTRAST, HARD_SMALLEST, accuracy, as_input, augment, initialize

SMALLER = MODEL_ARGS | {"depth": 1, "embed_dim": 32, "num_heads": 2}


def test_pixels_become_numbers_from_minus_one_to_one() -> None:
    pixels = np.zeros((1, 2, 4, 3), np.uint8)
    pixels[0, 1, 3] = (255, 51, 0)
    images = as_input(pixels)
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (1, 3, 2, 4))
    assert images[0, :, 1, 3].tolist() == pytest.approx([1.0, -0.6, -1.0])
    assert images[0, :, 0, 0].tolist() == [-1.0] * 3


def test_augmenting_moves_pixels_and_makes_none() -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32)
    seen = [augment(images, torch.Generator().manual_seed(seed)) for seed in range(4)]
    for found in seen:
        for before, after in zip(images, found, strict=True):
            assert torch.equal(after.flatten().sort().values, before.flatten())  # shifted round the edge, not cut
    assert len({float(found[0, 0, 0, 0]) for found in seen}) == 4
    assert torch.equal(seen[0], augment(images, torch.Generator().manual_seed(0)))


class Brightest(torch.nn.Module):
    """Says class 1 where the mean is above zero, and 0 elsewhere."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert len(images) <= 100
        means = images.mean((1, 2, 3))
        return torch.stack([-means, means], 1)


def test_accuracy_is_the_share_that_is_right() -> None:
    pixels = np.full((130, 4, 4, 3), 200, np.uint8)
    pixels[:30] = 10
    labels = np.ones(130, int)
    assert accuracy(Brightest().train(), pixels, labels) == 100 / 130
    labels[:30] = 0
    assert accuracy(Brightest(), pixels, labels) == 1.0


def test_it_starts_from_xavier_weights_and_sine_positions() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(MODEL_NAME, **SMALLER)
    initialize(model)
    weight = model.blocks[0].mlp.fc1.weight  # [128, 32]
    assert float(weight.detach().abs().max()) <= (6 / (32 + 128)) ** 0.5
    assert float(weight.detach().std()) == pytest.approx((2 / (32 + 128)) ** 0.5, rel=0.05)
    positions = model.pos_embed.detach()[0, 1:]
    assert tuple(positions.shape) == (14 * 14, 32)
    assert positions[0].abs().unique().tolist() == pytest.approx([0.0, 0.7])  # sines of 0 and cosines of 0
    assert torch.allclose(positions.square().sum(1), torch.full((196,), 0.49 * 16))


def test_a_pool_is_the_hard_images_of_its_seeds() -> None:
    pixels, labels = train.make_pool(20, 3, 2)
    wanted = [make_images(10, seed, contrast=HARD_CONTRAST, smallest=HARD_SMALLEST) for seed in (3000, 3001)]
    np.testing.assert_array_equal(pixels, np.concatenate([part[0] for part in wanted]))
    np.testing.assert_array_equal(labels, np.concatenate([part[1] for part in wanted]))


def test_training_writes_weights_that_load_and_says_how_good_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "MODEL_ARGS", SMALLER)
    monkeypatch.setattr(train, "make_pool", lambda count, seed, workers: make_images(count, seed))
    monkeypatch.setattr(train, "make_images", lambda count, seed: make_images(min(count, 40), seed))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    out = tmp_path / "w.safetensors"
    page = CliRunner().invoke(train.main, ["--out", str(out), "--epochs", "1", "--pool", "32", "--batch", "16"])
    assert page.exit_code == 0, page.output
    assert "epoch 1/1: loss 2." in page.output or "epoch 1/1: loss 3." in page.output
    model = create_model(MODEL_NAME, args=SMALLER, checkpoint=out)
    held_out, answers = make_images(40, train.HELD_OUT_SEED)
    with safe_open(out, framework="pt") as stream:
        metadata = stream.metadata()
    top1 = accuracy(model, held_out, answers)
    assert metadata | {"torch": ""} == {
        "held_out_top1": f"{top1:.4f}", "epochs": "1", "images": "32", "seed": "1", "torch": "",
    }  # fmt: skip
    assert f"held-out top-1 over 2,000 images: {top1:.4f}" in page.output
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
