"""How an image becomes a model's input, and the way between 8-bit pixels and that input, exact both ways."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SMALLEST_STD = 1 / 256  # just below the 1/255 of models that take pixels as they are


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

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` wrote, also where JSON has made lists of its rows.

        Raises:
            InputError: a key is missing or unknown.
        """
        try:
            found: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
            }
            return cls(**found)
        except TypeError as error:
            wanted = ", ".join(one.name for one in fields(cls))
            raise InputError(f"preprocess has the keys {excerpt(', '.join(plain))}, but must have {wanted}") from error


def check_constants(mean: Sequence[float], std: Sequence[float], where: str = "model.preprocess") -> None:
    """Refuse means and deviations that are not of pixels on a 0..1 scale, whatever the number of channels.

    Raises:
        InputError: naming the key, and what to write instead.
    """
    for key, values in (("mean", mean), ("std", std)):
        found = [float(value) for value in values]
        if not all(math.isfinite(value) for value in found):
            raise InputError(f"{where}.{key} is {found}; give a number for every channel")
        if any(value < 0 for value in found) or (key == "std" and 0 in found):
            wanted = "deviations must be above 0" if key == "std" else "means lie from 0 to 1"
            raise InputError(f"{where}.{key} is {found}; {wanted}")
        if any(value > 1 for value in found):
            scaled = [round(value / 255, 4) for value in found]
            advice = f"; of pixels from 0 to 255 it is {scaled}" if max(found) <= 255 else ""
            raise InputError(f"{where}.{key} is {found}, but pixels count from 0 to 1 here{advice}")
        if key == "std" and any(value < SMALLEST_STD for value in found):
            raise InputError(f"{where}.std is {found}; pixels of 8 bits have steps of {SMALLEST_STD:.4f}, give more")


def channel_constants(preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation by channel, [channels] float64 each.

    Raises:
        InputError: there is not one of each for every channel, or they are not of a 0..1 scale.
    """
    channels = preprocess.input_size[0]
    check_lengths(preprocess.mean, preprocess.std, channels)
    check_constants(preprocess.mean, preprocess.std)
    mean, std = (np.asarray(values, dtype=np.float64) for values in (preprocess.mean, preprocess.std))
    return mean, std


def check_lengths(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int, where: str = "model.preprocess"
) -> None:
    """Refuse other than one mean and one deviation for every channel; None is not looked at.

    Raises:
        InputError: with a value of the right length.
    """
    for key, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            one = values[0] if len(values) else 0.5
            raise InputError(
                f"{where}.{key} has {len(values)} value{'s' * (len(values) != 1)}, but the model {channels} "
                f"channel{'s' * (channels != 1)}; give one for each, such as {[one] * channels}"
            )


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
