"""Photos that lie in larger files, such as tar and parquet, each read by its index."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from ...exporter.core.preprocess import Preprocess
from .photos import Photos, decode_photo


class PackedPhoto(Protocol):
    """Where one photo's bytes lie."""

    @property
    def name(self) -> str:
        """Of the larger file, and of the photo in it."""

    def bytes(self) -> bytes:
        """The encoded photo.

        Raises:
            InputError: the larger file is no longer what it was.
        """


@dataclass
class PackedPhotos(Photos):
    """Photos in larger files.

    Attributes:
        photos: in a fixed order.
        labels, preprocess: see `Photos`.
    """

    photos: Sequence[PackedPhoto]
    labels: np.ndarray | None
    preprocess: Preprocess

    @property
    def names(self) -> Sequence[str]:
        """Those of the photos."""
        return [photo.name for photo in self.photos]

    def __len__(self) -> int:
        return len(self.photos)

    def open(self, index: int) -> Image.Image:
        """See `photos.open_photo`."""
        photo = self.photos[index]
        return decode_photo(io.BytesIO(photo.bytes()), photo.name)

    def digest(self, index: int) -> bytes:
        """Of the encoded photo."""
        return hashlib.sha256(self.photos[index].bytes()).digest()

    def part(self, indices: Sequence[int], labels: np.ndarray | None) -> PackedPhotos:
        """Some of the photos."""
        return PackedPhotos([self.photos[index] for index in indices], labels, self.preprocess)
