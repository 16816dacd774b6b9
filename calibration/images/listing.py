"""What a path of a recipe names: a folder of photos, an ImageFolder tree, an .npz or one photo, listed as a source."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess
from .photos import PhotoFiles
from .sources import ArrayImages, ImageSource, choose

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def open_images(
    path: str | os.PathLike[str],
    preprocess: Preprocess,
    *,
    classes: int | None = None,
    count: int | None = None,
    every: int = 1,
    offset: int = 0,
) -> ImageSource:
    """List a folder, an ImageFolder tree (labels are the sorted sub-folders) or an .npz.

    Args:
        path: folder of photos, folder of class folders, .npz with `image` and optionally `label`, or one photo.
        preprocess: the model's.
        classes: outputs of the model; labels are used only when the tree has as many classes.
        count: how many images, spread evenly; None takes all.
        every: take every n-th image only ...
        offset: ... from this one on, so that calibration and evaluation can be disjoint.

    Raises:
        InputError: nothing there, no image, or an .npz of another form.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(
            f"images.path: there is no {root}; give a folder of photos, a folder of class folders or an .npz"
        )
    if root.suffix == ".npz":
        return _open_npz(root, preprocess, count=count, every=every, offset=offset)
    if root.is_file():
        return PhotoFiles([root], None, preprocess)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(entry for entry in folder.rglob("*") if entry.suffix.lower() in SUFFIXES and entry.is_file())
        paths += found
        labels += [label] * len(found)
    flat = sorted(entry for entry in root.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    labelled = not flat and len(folders) == classes
    paths += flat
    chosen = choose(len(paths), count=count, every=every, offset=offset)
    if not chosen:
        what = (
            "no images" if not paths else f"only {len(paths)} images, none left with every: {every}, offset: {offset}"
        )
        raise InputError(f"images.path: {root} holds {what} (looked for {', '.join(sorted(SUFFIXES))})")
    picked = np.array([labels[i] for i in chosen], dtype=np.int64) if labelled else None
    return PhotoFiles([paths[i] for i in chosen], picked, preprocess)


def _open_npz(root: Path, preprocess: Preprocess, *, count: int | None, every: int, offset: int) -> ArrayImages:
    try:
        with open(root, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{root} is not a whole .npz of plain arrays ({error})") from error
    key = next((name for name in ("image", "images", "x") if name in data), None)
    if key is None:
        raise InputError(f"{root} has the arrays {sorted(data) or 'none'}, but none named image")
    pixels = data[key]
    channels, height, width = preprocess.input_size
    is_photos = pixels.ndim == 4 and pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    is_input = pixels.ndim == 4 and pixels.dtype.kind == "f" and pixels.shape[1:] == (channels, height, width)
    if not (is_photos or is_input):
        raise InputError(
            f"{root}: {key} is {pixels.dtype} {list(pixels.shape)}; give uint8 [n, height, width, 3] photos or float32 "
            f"[n, {channels}, {height}, {width}] preprocessed images"
        )
    chosen = choose(len(pixels), count=count, every=every, offset=offset)
    if not chosen:
        raise InputError(f"{root}: {key} holds no images to take")
    if is_input and not np.isfinite(pixels).all():
        raise InputError(f"{root}: {key} holds NaN or Inf")
    label = next((data[name] for name in ("label", "labels", "y") if name in data), None)
    if label is not None and (label.ndim != 1 or len(label) != len(pixels) or label.dtype.kind not in "iu"):
        raise InputError(f"{root}: label must be one integer an image, but is {label.dtype} {list(label.shape)}")
    picked = None if label is None else label[chosen].astype(np.int64)
    return ArrayImages(pixels[chosen], picked, preprocess, root.name)
