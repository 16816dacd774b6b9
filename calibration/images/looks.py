"""What tensors look like that are said to be preprocessed: another layout, pixels of 0 to 255, or not normalized."""

from __future__ import annotations

import math

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess

_FAR = 8.0  # times the largest input that a picture can give: nothing is normalized that wrongly, noise included
_DOUBTFUL = 0.75  # of the inputs' range, on each side of it


def input_range(preprocess: Preprocess) -> tuple[float, float]:
    """The least and the largest input that a picture can give, over all channels."""
    pairs = list(zip(preprocess.mean, preprocess.std, strict=False))
    return min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


def check_layout(values: np.ndarray, preprocess: Preprocess, what: str) -> None:
    """Refuse what is no float [n, channels, height, width] of the model's size.

    Raises:
        InputError: saying what it looks like instead.
    """
    wanted = tuple(preprocess.input_size)
    if values.dtype.kind == "f" and values.ndim == 4 and values.shape[1:] == wanted:
        return
    size = ", ".join(map(str, wanted))
    raise InputError(
        f"{what} {values.dtype} {list(values.shape)}, but the model takes float32 [n, {size}], preprocessed"
        f"{_advice(values, wanted)}"
    )


def _advice(values: np.ndarray, wanted: tuple[int, ...]) -> str:
    if values.ndim == 4 and values.shape[1:] == (*wanted[1:], wanted[0]) and values.dtype.kind == "f":
        return "; the channels come last here: transpose to (0, 3, 1, 2)"
    if values.dtype.kind in "iub":
        return "; these are integers, such as pixels: normalize them with timm.data.create_transform"
    return "; see timm.data.create_transform"


def check_values(values: np.ndarray, preprocess: Preprocess, what: str) -> tuple[float, float]:
    """Refuse values that no preprocessing of the model gives.

    Args:
        values: [n, channels, height, width] of floats, not empty.
        preprocess: of the model.
        what: the values are called in messages.

    Returns:
        the least and the largest value.

    Raises:
        InputError: NaN, infinity, pixels of 0 to 255, or values far beyond the model's.
    """
    with np.errstate(invalid="ignore"):
        low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{what} holds NaN or Inf")
    least, most = input_range(preprocess)
    far = _FAR * max(abs(least), abs(most), 1.0)
    pixels = low >= 0 and most < high <= 256
    if max(-low, high) > far or (pixels and high > 1 and bool((values == np.rint(values)).all())):
        looks = "look like pixels of 0 to 255" if pixels else f"reach from {low:.4g} to {high:.4g}"
        raise InputError(
            f"{what} holds values that {looks}, where the model's inputs lie from {least:.2f} to {most:.2f}; give "
            "(pixels / 255 - mean) / std, as timm.data.create_transform does, or uint8 photos"
        )
    return low, high


def doubt(low: float, high: float, preprocess: Preprocess, what: str) -> str | None:
    """What is odd about the range of all values, for a person; None where nothing is.

    Args:
        low, high: what `check_values` found, over all batches.
        preprocess: of the model.
        what: the values are called.
    """
    least, most = input_range(preprocess)
    if low == high:
        return f"{what}: every value is {low:.4g}"
    if low >= 0 and high <= 1 and (least < -0.5 or most > 1.5):
        return (
            f"{what}: all values lie from 0 to 1, where the model's inputs lie from {least:.2f} to {most:.2f}; "
            "subtract the mean and divide by the deviation if that was not done"
        )
    room = _DOUBTFUL * (most - least)
    if low < least - room or high > most + room:
        return (
            f"{what}: values reach from {low:.2f} to {high:.2f}, where the model's inputs lie from {least:.2f} to "
            f"{most:.2f}; are they normalized as the model wants?"
        )
    return None
