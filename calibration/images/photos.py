"""Photos on disk: opened whatever their kind, with the model's own preprocessing."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...exporter.core.errors import InputError
from ...exporter.core.files import explain_read_error
from ...exporter.core.preprocess import Preprocess


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
        """Hash of the files' bytes and the preprocessing; the files are read once."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256(repr(sorted(self.preprocess.to_dict().items())).encode())
        for path in self.paths:
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise explain_read_error(error, path) from error
        return digest.hexdigest()
