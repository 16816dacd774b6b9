"""How an image becomes a model's input, and the way between 8-bit pixels and that input, exact both ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input; resolved from timm's data config."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return asdict(self)


def channel_constants(preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation by channel, [channels] float64 each.

    Raises:
        InputError: there is not one of each for every channel, or a deviation is not above 0.
    """
    channels = preprocess.input_size[0]
    mean, std = (np.asarray(values, dtype=np.float64) for values in (preprocess.mean, preprocess.std))
    if mean.shape != (channels,) or std.shape != (channels,):
        raise InputError(
            f"model.preprocess: the model has {channels} channels, but {mean.size} means and {std.size} deviations"
        )
    if not (std > 0).all():
        raise InputError(f"model.preprocess.std is {std.tolist()}; deviations must be above 0")
    return mean, std


def to_pixels(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The nearest 8-bit pixels of preprocessed images.

    Args:
        images: [n, channels, height, width] float32.
        preprocess: how they were normalized.

    Returns:
        [n, height, width, channels] uint8; what lies outside of 0..255 is clipped.
    """
    mean, std = channel_constants(preprocess)
    values = (images.transpose(0, 2, 3, 1).astype(np.float64) * std + mean) * 255
    return np.ascontiguousarray(values.round().clip(0, 255).astype(np.uint8))


def from_pixels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Normalize pixels as timm's transform does, to the bit.

    Args:
        pixels: [n, height, width, channels] uint8.
        preprocess: the model's.

    Returns:
        [n, channels, height, width] float32.
    """
    mean, std = (values.astype(np.float32)[:, None, None] for values in channel_constants(preprocess))
    scaled = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    return (scaled - mean) / std
