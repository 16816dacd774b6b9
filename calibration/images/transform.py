"""timm's evaluation transform, to the bit and without PyTorch: resize, crop, and then `from_pixels`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess, channel_constants, from_pixels

_WAYS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_PCT = 0.875  # timm's where a model says none


def make_transform(preprocess: Preprocess) -> Callable[[Image.Image], np.ndarray]:
    """From a photo in RGB to the model's input [channels, height, width] float32.

    Raises:
        InputError: the model takes neither colour nor gray, its means and deviations do not fit its channels, or its
            interpolation is unknown.
    """
    channels = preprocess.input_size[0]
    if channels not in (1, 3):
        raise InputError(
            f"the model takes {channels} channels, and photos have 3; give an .npz with pixels or preprocessed images"
        )
    channel_constants(preprocess)
    if preprocess.interpolation not in _WAYS:
        raise InputError(f"there is no interpolation {preprocess.interpolation!r} (there are {', '.join(_WAYS)})")

    def transform(photo: Image.Image) -> np.ndarray:
        cropped = resize_and_crop(photo if channels == 3 else photo.convert("L"), preprocess)
        pixels = np.asarray(cropped).reshape(1, cropped.height, cropped.width, channels)
        found: np.ndarray = from_pixels(pixels, preprocess)[0]
        return found

    return transform


def resize_and_crop(photo: Image.Image, preprocess: Preprocess) -> Image.Image:
    """A photo at the model's size: `center` keeps the ratio and crops, `squash` does not keep it, `border` pads."""
    height, width = preprocess.input_size[1:]
    scale = preprocess.crop_pct or _CROP_PCT
    wanted = (math.floor(height / scale), math.floor(width / scale))
    size, fill = _sizes(photo, wanted, preprocess.crop_mode), 0
    if preprocess.crop_mode == "border":
        colours = [round(255 * value) for value in preprocess.mean]
        fill = colours[0] if photo.mode == "L" else tuple(colours)  # type: ignore[assignment]
    if (photo.height, photo.width) != size:
        photo = photo.resize(size[::-1], _WAYS[preprocess.interpolation])
    return _center(photo, height, width, fill)


def _sizes(photo: Image.Image, wanted: tuple[int, int], mode: str) -> tuple[int, int]:
    """Height and width to resize to."""
    if mode == "squash":
        return wanted
    if mode != "border" and wanted[0] == wanted[1]:
        short, long = sorted((photo.height, photo.width))
        other = int(wanted[0] * long / short)
        return (other, wanted[0]) if photo.width <= photo.height else (wanted[0], other)
    ratios = photo.height / wanted[0], photo.width / wanted[1]
    ratio = max(ratios) if mode == "border" else min(ratios)
    return round(photo.height / ratio), round(photo.width / ratio)


def _center(photo: Image.Image, height: int, width: int, fill: int | tuple[int, ...]) -> Image.Image:
    """The middle of a photo; where it is smaller, a border is added."""
    lacks = max(width - photo.width, 0), max(height - photo.height, 0)
    if any(lacks):
        border = (lacks[0] // 2, lacks[1] // 2, (lacks[0] + 1) // 2, (lacks[1] + 1) // 2)
        photo = ImageOps.expand(photo, border, fill)
    top, left = round((photo.height - height) / 2), round((photo.width - width) / 2)
    return photo.crop((left, top, left + width, top + height))
