"""Images as a source: listed first (names, labels, hash), then read one by one; and sources made of others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...exporter.core.preprocess import Preprocess, from_pixels, to_pixels


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


def start_hash(preprocess: Preprocess, labels: np.ndarray | None) -> Any:
    """A SHA-256 that has read the preprocessing, and the labels where there are any."""
    digest = hashlib.sha256(repr(sorted(preprocess.to_dict().items())).encode())
    if labels is not None:
        digest.update(b"labels" + np.asarray(labels, dtype=np.int64).tobytes())
    return digest


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


@dataclass
class Part:
    """Some images of another source.

    Attributes:
        chosen: their indices there.
    """

    source: ImageSource
    chosen: Sequence[int]

    @property
    def labels(self) -> np.ndarray | None:
        """Those of the source."""
        labels = self.source.labels
        return None if labels is None else np.asarray(labels)[list(self.chosen)]

    @property
    def names(self) -> Sequence[str]:
        """Those of the source."""
        names = self.source.names
        return [names[index] for index in self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""
        return self.source.read(self.chosen[index])

    def fingerprint(self) -> str:
        """Hash of the source and of what is taken of it."""
        return hashlib.sha256(f"{list(self.chosen)}:{self.source.fingerprint()}".encode()).hexdigest()


def halves(source: ImageSource) -> tuple[Part, Part]:
    """A source's even and odd images."""
    even, odd = (choose(len(source), every=2, offset=offset) for offset in (0, 1))
    return Part(source, even), Part(source, odd)


def choose(total: int, *, count: int | None = None, every: int = 1, offset: int = 0) -> list[int]:
    """Indices of `count` items spread evenly over `offset, offset + every, ...` below `total`."""
    pool = range(offset, total, every)
    if count is None or count >= len(pool):
        return list(pool)
    return [pool[(2 * i + 1) * len(pool) // (2 * count)] for i in range(count)]
