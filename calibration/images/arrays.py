"""An .npz as a source: uint8 photos or preprocessed images, perhaps with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...exporter.core.arrays import read_arrays
from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess
from .folders import some
from .in_memory import RGB, ArrayImages
from .looks import check_values, doubt
from .sources import choose

IMAGES, LABELS = ("image", "images", "x"), ("label", "labels", "y")


def open_npz(
    root: Path,
    preprocess: Preprocess,
    *,
    classes: int | None = None,
    count: int | None = None,
    every: int = 1,
    offset: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> ArrayImages:
    """Open an .npz with `image` and perhaps `label`; other arrays in it are not read.

    Args:
        root: the file.
        preprocess: the model's.
        classes: of the model, which labels are held against; None holds them against nothing.
        count, every, offset: which images, see `open_images`.
        note: hears what a person should know.

    Raises:
        InputError: not an .npz of plain arrays, or of another form; images or labels that cannot be the model's.
    """
    pixels, label, others = _read(root)
    _check_form(pixels, preprocess, root)
    chosen = choose(len(pixels), count=count, every=every, offset=offset)
    if not chosen:
        raise InputError(f"{root}: image holds no images to take")
    doubtful = None
    if pixels.dtype == np.uint8:
        if pixels.max() <= 1:
            doubtful = f"{root}: no pixel is above 1; photos have pixels of 0 to 255"
    else:
        doubtful = doubt(*check_values(pixels, preprocess, f"{root}: image"), preprocess, f"{root}")
    if doubtful is not None:
        note(doubtful)
    picked = None
    if label is not None:
        picked = check_labels(label, len(pixels), classes, f"{root}: label")[chosen]
    elif others:
        note(f"no labels: {root} has no array named label; the arrays {some(others)} are not read")
    taken = pixels if len(chosen) == len(pixels) else pixels[chosen]
    return ArrayImages(taken, picked, preprocess, root.name)


def check_labels(label: np.ndarray, images: int, classes: int | None, what: str) -> np.ndarray:
    """Labels as [images] int64.

    Raises:
        InputError: they are not one integer an image, or no class of the model's.
    """
    if label.ndim != 1 or len(label) != images or label.dtype.kind not in "iu":
        raise InputError(f"{what} must be one integer an image, but is {label.dtype} {list(label.shape)}")
    low, high = (int(label.min()), int(label.max())) if images else (0, 0)
    if classes is not None and not 0 <= low <= high < classes:
        from_one = "; do they count from 1?" if low == 1 and high == classes else ""
        raise InputError(
            f"{what} reaches from {low} to {high}, but the model's classes are 0 to {classes - 1}{from_one}"
        )
    return label.astype(np.int64)


def _read(root: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Images, labels if there are any, and the names of other arrays."""
    others: list[str] = []

    def choose(names: Sequence[str]) -> list[str]:
        wanted = [next((name for name in group if name in names), None) for group in (IMAGES, LABELS)]
        if wanted[0] is None:
            raise InputError(f"{root} has {some(list(names)) if names else 'no arrays'}, but no array named image")
        others.extend(name for name in names if name not in wanted)
        return [name for name in wanted if name is not None]

    pixels, *labels = read_arrays(root, choose).values()
    return pixels, labels[0] if labels else None, others


def _check_form(pixels: np.ndarray, preprocess: Preprocess, root: Path) -> None:
    channels, height, width = preprocess.input_size
    found, size = pixels.dtype, pixels.shape
    if pixels.ndim == 4 and found == np.uint8 and size[-1] == RGB and min(size[1:]) > 0:
        return
    if pixels.ndim == 4 and found == np.uint8 and size[1:] == (height, width, channels):
        return
    if pixels.ndim == 4 and found.kind == "f" and size[1:] == (channels, height, width):
        return
    hint = ""
    if pixels.ndim == 4 and found == np.uint8 and size[1] == 3:
        hint = "; the channels come first here: image.transpose(0, 2, 3, 1)"
    elif pixels.ndim == 4 and found.kind == "f" and size[1:] == (height, width, channels):
        hint = "; the channels come last here: image.transpose(0, 3, 1, 2)"
    elif pixels.ndim == 3:
        hint = "; for one image: image[None]"
    others = "" if channels == RGB else f", uint8 [n, {height}, {width}, {channels}] pixels"
    raise InputError(
        f"{root}: image is {found} {list(size)}; give uint8 [n, height, width, 3] photos{others} or float32 "
        f"[n, {channels}, {height}, {width}] preprocessed images{hint}"
    )
