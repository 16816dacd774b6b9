"""Photos as batches: a folder, an ImageFolder tree, an .npz or generated ones, with the model's own preprocessing.

A source is listed first (names, labels, hash) and read batch by batch, so a folder of any size takes bounded memory.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess, from_pixels, to_pixels

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


class ImageSource(Protocol):
    """A list of images that can be read in batches."""

    @property
    def labels(self) -> np.ndarray | None:
        """Class index of every image, if known."""

    @property
    def names(self) -> Sequence[str]:
        """One name an image."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""

    def fingerprint(self) -> str:
        """Hex SHA-256 over what the images are and how they are preprocessed."""


def batches(source: ImageSource, size: int) -> Iterator[np.ndarray]:
    """Preprocessed images in order, [size, channels, height, width] float32; the last batch may be smaller."""
    for start in range(0, len(source), size):
        yield read_some(source, range(start, min(start + size, len(source))))


def shuffled(count: int, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Indices of `count` images in random order, in batches of at most `size`."""
    return np.array_split(generator.permutation(count), -(-count // size))


def read_some(source: ImageSource, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Images [n, channels, height, width] float32 by index."""
    return np.stack([source.read(int(index)) for index in indices])


def read_all(source: ImageSource) -> np.ndarray:
    """All images at once, [n, channels, height, width] float32; for small sources."""
    return read_some(source, range(len(source)))


def open_photo(path: Path) -> Image.Image:
    """Open any photo as 8-bit RGB: grayscale, CMYK, palette, alpha (over white) and 16-bit included.

    Raises:
        InputError: missing, truncated, not an image, or too large to be one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", message=".*Transparency.*")
            with Image.open(path) as image:
                image.load()
                return _to_rgb(image)
    except FileNotFoundError as error:
        raise InputError(f"there is no image {path}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that Pillow can read; remove it or convert it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels; scale it down first") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be decoded ({error}); it may be truncated: fetch it again") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        # 16-bit files span 0..65535; Pillow's own conversion would clip them to white.
        if values.max(initial=0) > 255:
            values = values / 257.0
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def make_transform(preprocess: Preprocess) -> Any:
    """timm's evaluation transform: PIL image -> tensor [channels, height, width] float32."""
    from timm.data import create_transform

    return create_transform(**preprocess.to_dict(), is_training=False)


@dataclass
class PhotoFiles:
    """Image files on disk.

    Attributes:
        paths: the files, in a fixed order.
        labels: class index of every file where the tree names classes, else None.
    """

    paths: list[Path]
    labels: np.ndarray | None
    preprocess: Preprocess
    _transform: Any = field(default=None, repr=False)

    @property
    def names(self) -> Sequence[str]:
        """File paths as text."""
        return [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""
        if self._transform is None:
            self._transform = make_transform(self.preprocess)
        photo = open_photo(self.paths[index])
        if self.preprocess.input_size[0] == 1:
            photo = photo.convert("L")
        return np.asarray(self._transform(photo), dtype=np.float32)

    def fingerprint(self) -> str:
        """Hash of the files' bytes and the preprocessing."""
        digest = hashlib.sha256(repr(sorted(self.preprocess.to_dict().items())).encode())
        for path in self.paths:
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
        return digest.hexdigest()


@dataclass
class ArrayImages:
    """Images that are already in memory.

    Attributes:
        pixels: [n, height, width, 3] uint8 (preprocessed on reading), or [n, channels, height, width] float32, which
            are taken as preprocessed.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    preprocess: Preprocess
    origin: str
    _transform: Any = field(default=None, repr=False)

    @property
    def names(self) -> Sequence[str]:
        """`origin[index]` for every image."""
        return [f"{self.origin}[{index}]" for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""
        if self.pixels.dtype != np.uint8:
            return np.asarray(self.pixels[index], dtype=np.float32)
        if self._transform is None:
            self._transform = make_transform(self.preprocess)
        photo = Image.fromarray(self.pixels[index])
        return np.asarray(self._transform(photo), dtype=np.float32)

    def fingerprint(self) -> str:
        """Hash of the pixels and the preprocessing."""
        digest = hashlib.sha256(repr(sorted(self.preprocess.to_dict().items())).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()


@dataclass
class EightBit:
    """Images of another source as a camera would give them: rounded to 8 bits a channel, then preprocessed."""

    source: ImageSource
    preprocess: Preprocess

    @property
    def labels(self) -> np.ndarray | None:
        """Those of the source."""
        return self.source.labels

    @property
    def names(self) -> Sequence[str]:
        """Those of the source."""
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32, on the 8-bit grid."""
        return from_pixels(to_pixels(self.source.read(index)[None], self.preprocess), self.preprocess)[0]

    def fingerprint(self) -> str:
        """Hash of the source and of the rounding."""
        return hashlib.sha256(f"8 bit:{self.source.fingerprint()}".encode()).hexdigest()


def choose(total: int, *, count: int | None = None, every: int = 1, offset: int = 0) -> list[int]:
    """Indices of `count` items spread evenly over `offset, offset + every, ...` below `total`."""
    pool = range(offset, total, every)
    if count is None or count >= len(pool):
        return list(pool)
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]


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
