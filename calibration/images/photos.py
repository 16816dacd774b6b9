"""Photos on disk: opened whatever their kind, with the model's own preprocessing."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...exporter.core.errors import InputError, VitrimError
from ...exporter.core.files import sha256
from ...exporter.core.inputs import InputKind, open_file
from ...exporter.core.preprocess import Preprocess
from .sources import start_hash
from .transform import make_transform

_NARROWEST = 100  # sides beyond this ratio are no photo, and grow out of memory when the short one is scaled up
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose pixels in mode I count to 65535
_CLEAR = 16.0  # floats whose largest value lies between 1 and this may count to 1 or to 255
_BITS, _WHITE_IS_ZERO, _ORIENTATION = 258, 262, 274  # tags of TIFF and EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_photo(path: Path) -> Image.Image:
    """Open any photo as 8-bit RGB, upright as its EXIF says: grayscale, CMYK, palette and 16-bit included.

    What is transparent shows white; of an animation the first picture is taken.

    Raises:
        InputError: missing, truncated, not an image, too large or narrow to be one, or of pixels without a known white.
    """
    if not os.path.exists(path):
        raise InputError(f"there is no image {path}")
    with open_file(path, InputKind.PICTURE) as stream:
        return decode_photo(stream, path)


def decode_photo(stream: BinaryIO, path: str | os.PathLike[str]) -> Image.Image:
    """`open_photo` of an open file; `path` is its name, for messages.

    Raises:
        InputError: see `open_photo`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", message=".*(Transparency|[Cc]orrupt EXIF|Truncated File Read).*")
            with Image.open(stream) as image:
                refuse_strip(image.size, str(path))
                image.load()
                turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
                photo = _to_rgb(image, path)
                return photo if turn is None else photo.transpose(turn)
    except VitrimError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that Pillow can read; remove it or convert it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise InputError(f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels; scale it down first") from error
    except Exception as error:  # decoders raise types of their own for damaged files
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path} cannot be decoded ({reason}); it may be truncated: fetch it again") from error


def refuse_strip(size: tuple[int, int], what: str) -> None:
    """Refuse what is too narrow to be a photo.

    Raises:
        InputError: with its size.
    """
    if max(size) > _NARROWEST * min(size):
        raise InputError(f"{what} has {size[0]} x {size[1]} pixels, which is too narrow for a photo; crop it")


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_gray(image, path).convert("RGB")
    if image.mode in ("La", "RGBa"):  # colours that are multiplied by their opacity
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep_to_gray(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    """Pixels of more than 8 bits, scaled by what their kind counts to and never by their own maximum."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = tags.get(_BITS, (16,))
        white = float(2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1)
    elif image.mode == "I" and image.format in _SIXTEEN_BITS:
        white = 65535.0
    elif image.mode == "I":
        raise InputError(f"{path} has pixels of 32 bits, and nothing says which is white; save it with 8 or 16 bits")
    else:
        white = _white_of(values, path)
    scaled = values * (255.0 / white)
    if tags.get(_WHITE_IS_ZERO) == 0:
        scaled = 255.0 - scaled
    return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))


def _white_of(values: np.ndarray, path: str | os.PathLike[str]) -> float:
    """What floats count to: 1 or 255.

    Raises:
        InputError: neither is clear.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low >= 0 and high <= 1:
        return 1.0
    if low >= 0 and _CLEAR <= high <= 255:
        return 255.0
    found = f"from {low:.4g} to {high:.4g}" if np.isfinite([low, high]).all() else "with NaN or Inf among them"
    raise InputError(
        f"{path} has floats as pixels, {found}; only 0 to 1 and 0 to 255 are clear: save it with 8 or 16 bits"
    )


class Photos(ABC):
    """Encoded photos somewhere, each read by its index.

    Attributes:
        labels: class index of every photo where something names classes, else None.
        preprocess: the model's.
    """

    labels: np.ndarray | None
    preprocess: Preprocess

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """One name a photo."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """One photo, decoded; see `open_photo`."""

    @abstractmethod
    def digest(self, index: int) -> bytes:
        """SHA-256 of one photo's bytes as they lie there."""

    @abstractmethod
    def part(self, indices: Sequence[int], labels: np.ndarray | None) -> Photos:
        """Some of the photos, by index, with labels of their own."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @cached_property
    def _transform(self) -> Callable[[Image.Image], np.ndarray]:
        return make_transform(self.preprocess)

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""
        return np.asarray(self._transform(self.open(index)), dtype=np.float32)

    def fingerprint(self) -> str:
        """Hash of the photos' bytes, the labels and the preprocessing; they are read once."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        digest = start_hash(self.preprocess, self.labels)
        for index in range(len(self)):
            digest.update(self.digest(index))
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made again in another process."""
        return {key: value for key, value in self.__dict__.items() if key != "_transform"}


@dataclass
class PhotoFiles(Photos):
    """Image files on disk.

    Attributes:
        paths: the files, in a fixed order.
        labels, preprocess: see `Photos`.
    """

    paths: list[Path]
    labels: np.ndarray | None
    preprocess: Preprocess

    @property
    def names(self) -> Sequence[str]:
        """File paths as text."""
        return [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """See `open_photo`."""
        return open_photo(self.paths[index])

    def digest(self, index: int) -> bytes:
        """Of the file."""
        return bytes.fromhex(sha256(self.paths[index]))

    def part(self, indices: Sequence[int], labels: np.ndarray | None) -> PhotoFiles:
        """Some of the files."""
        return PhotoFiles([self.paths[index] for index in indices], labels, self.preprocess)
