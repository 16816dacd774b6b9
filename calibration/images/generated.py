"""Labelled images made on the fly: one patterned ball on a cluttered background, so that few patches decide the class.

Everything is drawn from a seeded generator; a seed gives the same images everywhere with the same versions of numpy
and Pillow.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = (
    "horizontal stripes",
    "vertical stripes",
    "rising stripes",
    "falling stripes",
    "checks",
    "dots",
    "grid",
    "rings",
    "wedges",
    "speckles",
)
SIZE = 112
CONTRAST, SMALLEST, LARGEST = 150.0, 0.18, 0.26


def _pattern(kind: str, x: np.ndarray, y: np.ndarray, period: float, rng: np.random.Generator) -> np.ndarray:
    """The share of the second colour at every pixel, 0 or 1.

    Args:
        x: [size, size] pixels to the right of the ball's centre, along the pattern.
        y: the same, downwards.
        period: pixels after which the pattern repeats.
    """
    if kind.endswith("stripes"):
        along = {
            "horizontal": y,
            "vertical": x,
            "rising": (x + y) / math.sqrt(2),
            "falling": (x - y) / math.sqrt(2),
        }
        return (along[kind.split()[0]] % period < period / 2).astype(np.float64)
    if kind == "checks":
        return ((x // (period / 2) + y // (period / 2)) % 2).astype(np.float64)
    if kind == "dots":
        return (((x % period) - period / 2) ** 2 + ((y % period) - period / 2) ** 2 < (0.32 * period) ** 2) * 1.0
    if kind == "grid":
        return ((x % period < period * 0.25) | (y % period < period * 0.25)) * 1.0
    if kind == "rings":
        return (np.hypot(x, y) % period < period / 2).astype(np.float64)
    if kind == "wedges":
        return (((np.arctan2(y, x) / math.pi + 1) * 4) % 2 < 1).astype(np.float64)
    if kind == "speckles":
        cells = rng.random((x.shape[0] // 2 + 1, x.shape[1] // 2 + 1)) < 0.5
        return np.kron(cells, np.ones((2, 2)))[: x.shape[0], : x.shape[1]]
    raise ValueError(kind)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Gradient, coarse texture, strokes and blotches: clutter of no class."""
    ramp = np.linspace(0, 1, size)
    angle = rng.uniform(0, 2 * math.pi)
    mix = 0.5 + 0.5 * (np.cos(angle) * (ramp[None, :] - 0.5) + np.sin(angle) * (ramp[:, None] - 0.5))
    colours = rng.uniform(20, 235, (2, 3))
    base = mix[..., None] * colours[0] + (1 - mix[..., None]) * colours[1]
    cells = int(rng.integers(4, 15))
    coarse = rng.normal(0, 22, (cells, cells, 3))
    texture = np.stack(
        [np.asarray(Image.fromarray(coarse[..., c].astype(np.float32)).resize((size, size))) for c in range(3)],
        -1,
    )
    image = Image.fromarray((base + texture).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 11))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        points = rng.uniform(-5, size + 5, (int(rng.integers(2, 5)), 2))
        draw.line([(float(x), float(y)) for x, y in points], fill=colour, width=int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(3, 9))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y, w, h = (float(value) for value in (*rng.uniform(0, size, 2), *rng.uniform(2, 7, 2)))
        draw.ellipse((x - w, y - h, x + w, y + h), fill=colour)
    return image


def make_image(
    label: int, seed: tuple[int, ...], size: int = SIZE, contrast: float = CONTRAST, smallest: float = SMALLEST
) -> np.ndarray:
    """One image of a class.

    Args:
        label: index into `CLASSES`.
        seed: any integers; the same ones give the same image.
        size: height and width in pixels.
        contrast: least difference of the ball's two colours in one channel, 0 to 255.
        smallest: least radius of the ball, as a share of the size.

    Returns:
        [size, size, 3] uint8.
    """
    rng = np.random.default_rng(seed)
    pixels = np.asarray(_background(rng, size), dtype=np.float64)
    radius = rng.uniform(smallest, LARGEST) * size
    cx, cy = rng.uniform(radius, size - radius, 2)
    row, column = np.mgrid[0:size, 0:size]
    dx, dy = column - cx, row - cy
    tilt = rng.uniform(-0.2, 0.2)
    x, y = dx * math.cos(tilt) + dy * math.sin(tilt), dy * math.cos(tilt) - dx * math.sin(tilt)
    first, second = rng.uniform(0, 255, (2, 3))
    while np.abs(first - second).max() < contrast:  # two colours that nobody could tell apart teach nothing
        first, second = rng.uniform(0, 255, (2, 3))
    share = _pattern(CLASSES[label], x, y, rng.uniform(6, 9), rng)[..., None]
    inside = (radius - np.hypot(dx, dy)).clip(0, 1)[..., None]
    pixels = pixels * (1 - inside) + (first * (1 - share) + second * share) * inside
    pixels = pixels + rng.normal(0, rng.uniform(2, 10), pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def make_images(
    count: int, seed: int, size: int = SIZE, contrast: float = CONTRAST, smallest: float = SMALLEST
) -> tuple[np.ndarray, np.ndarray]:
    """Images with balanced labels.

    Args:
        count: how many.
        seed: of the set; image i depends on the seed and i only.
        size: height and width in pixels.
        contrast, smallest: of every ball, see `make_image`.

    Returns:
        pixels [count, size, size, 3] uint8 and labels [count] int64.
    """
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    pixels = np.empty((count, size, size, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        pixels[index] = make_image(int(label), (seed, index), size, contrast, smallest)
    return pixels, labels


def write_folder(path: str | os.PathLike[str], count: int, seed: int, size: int = SIZE) -> None:
    """Write an ImageFolder tree of PNG files: `<index>_<class>/<image>.png`."""
    pixels, labels = make_images(count, seed, size)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = Path(path) / f"{label}_{CLASSES[label].replace(' ', '_')}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:05d}.png")
