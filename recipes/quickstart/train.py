"""Train the quickstart model: `python -m vitrim.recipes.quickstart.train --out weights.safetensors`.

Images are endless, so every one is seen a few times at most; they are harder than those that are shown later. Half of
the patches are dropped at random (timm's PatchDropout): it halves the cost, and a network that has seen gaps tolerates
pruning. On one busy core it took 20 minutes.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch.nn import functional as F

from ...calibration.images.generated import CLASSES, make_images
from ...exporter.core.files import atomic_path
from . import HELD_OUT_SEED, MODEL_ARGS, MODEL_NAME, TRAIN_SEED

POOL = 12_000
DROP = 0.5  # share of patches dropped in training
HARD_CONTRAST, HARD_SMALLEST = 110.0, 0.15  # trained on fainter and smaller balls than it is shown later


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] with mean and deviation 0.5."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Swap the batch's colour channels and shift it cyclically by a few pixels; no class changes by that."""
    shift = torch.randint(-8, 9, (2,), generator=generator)
    images = images.roll((int(shift[0]), int(shift[1])), (2, 3))
    return images[:, torch.randperm(3, generator=generator)]


@torch.inference_mode()
def accuracy(model: Any, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy over uint8 images."""
    model.eval()
    right = 0
    for start in range(0, len(pixels), 100):
        guess = model(as_input(pixels[start : start + 100])).argmax(1).numpy()
        right += int((guess == labels[start : start + 100]).sum())
    return right / len(pixels)


@torch.no_grad()
def initialize(model: Any) -> None:
    """Xavier weights and sine-cosine positions: a narrow ViT barely learns from timm's deviation of 0.02."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    patches = model.patch_embed.proj.weight
    torch.nn.init.xavier_uniform_(patches.view(patches.shape[0], -1))
    positions = build_sincos2d_pos_embed(list(model.patch_embed.grid_size), dim=model.embed_dim)
    model.pos_embed[:, 1:] = 0.7 * positions
    torch.nn.init.normal_(model.cls_token, std=0.5)


def make_pool(count: int, seed: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate hard images in parallel; part i has the seed `seed * 1000 + i`."""
    with ProcessPoolExecutor(workers) as pool:
        seeds = [seed * 1000 + i for i in range(workers)]
        parts = list(
            pool.map(partial(make_images, count // workers, contrast=HARD_CONTRAST, smallest=HARD_SMALLEST), seeds)
        )
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@click.command()
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Safetensors file to write."
)
@click.option("--epochs", default=10, show_default=True, help="Passes over the pool of generated images.")
@click.option("--pool", default=POOL, show_default=True, help="How many images to generate.")
@click.option("--batch", default=64, show_default=True, help="Images a step.")
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def main(out: Path, epochs: int, pool: int, batch: int, rate: float, threads: int) -> None:
    """Train, measure on 2,000 images of another seed, and save weights with the figures in their metadata."""
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    torch.manual_seed(TRAIN_SEED)
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    began = time.monotonic()
    pixels, labels = make_pool(pool, TRAIN_SEED, threads)
    held_out, answers = make_images(2000, HELD_OUT_SEED)
    click.echo(f"{len(pixels)} images of {len(CLASSES)} classes in {time.monotonic() - began:.0f} s")
    model: Any = timm.create_model(MODEL_NAME, patch_drop_rate=DROP, **MODEL_ARGS)
    initialize(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    steps, warm = epochs * (len(pixels) // batch), 100
    step = 0
    for epoch in range(epochs):
        model.train()
        order, losses = torch.randperm(len(pixels), generator=generator).numpy(), []
        for start in range(0, len(order) - batch + 1, batch):
            for group in optimizer.param_groups:
                group["lr"] = rate * min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3)
            chosen = np.sort(order[start : start + batch])
            images = augment(as_input(pixels[chosen]), generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), torch.from_numpy(labels[chosen]), label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
        top1 = accuracy(model, held_out[:500], answers[:500])
        click.echo(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}, top-1 {top1:.3f}, "
            f"{time.monotonic() - began:.0f} s"
        )
    top1 = accuracy(model, held_out, answers)
    minutes = (time.monotonic() - began) / 60
    click.echo(f"held-out top-1 over 2,000 images: {top1:.4f} after {minutes:.1f} minutes")
    metadata = {
        "held_out_top1": f"{top1:.4f}",
        "epochs": str(epochs),
        "images": str(pool),
        "seed": str(TRAIN_SEED),
        "torch": torch.__version__,
    }
    with atomic_path(out) as temporary:
        save_file(model.state_dict(), temporary, metadata=metadata)


if __name__ == "__main__":
    main()
