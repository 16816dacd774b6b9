"""Images as a source: listed first (names, labels, hash), then read batch by batch, so that memory stays bounded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ...exporter.core.preprocess import Preprocess, from_pixels, to_pixels

RGB = 3  # channels of a photo


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
    """Preprocessed images in order, [size, channels, height, width] float32; the last batch may be smaller.

    Photos are decoded by workers while the caller computes, see `loader`.
    """
    from .loader import read_batches

    return read_batches(source, range(len(source)), size)


def shuffled(count: int, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Indices of `count` images in random order, in batches of at most `size`."""
    return np.array_split(generator.permutation(count), -(-count // size))


def read_some(source: ImageSource, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Images [n, channels, height, width] float32 by index."""
    from .loader import read_batches

    return np.concatenate(list(read_batches(source, indices, 32)))


def read_all(source: ImageSource) -> np.ndarray:
    """All images at once, [n, channels, height, width] float32; for small sources."""
    return read_some(source, range(len(source)))


def start_hash(preprocess: Preprocess, labels: np.ndarray | None) -> Any:
    """A SHA-256 that has read the preprocessing, and the labels where there are any."""
    digest = hashlib.sha256(repr(sorted(preprocess.to_dict().items())).encode())
    if labels is not None:
        digest.update(b"labels" + np.asarray(labels, dtype=np.int64).tobytes())
    return digest


@dataclass
class ArrayImages:
    """Images that are already in memory.

    Attributes:
        pixels: [n, height, width, 3] uint8 (preprocessed on reading), [n, height, width, channels] uint8 of the model's
            own size (normalized on reading), or [n, channels, height, width] float32, which are taken as preprocessed.
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

    def part(self, which: slice) -> ArrayImages:
        """Some of the images, under the same origin."""
        labels = None if self.labels is None else self.labels[which]
        first, last, _ = which.indices(len(self))
        return ArrayImages(self.pixels[which], labels, self.preprocess, f"{self.origin}[{first}:{last}]")

    def read(self, index: int) -> np.ndarray:
        """One preprocessed image [channels, height, width] float32."""
        if self.pixels.dtype != np.uint8:
            return np.asarray(self.pixels[index], dtype=np.float32)
        if self.pixels.shape[3] != RGB:
            return from_pixels(self.pixels[index : index + 1], self.preprocess)[0]
        from PIL import Image

        from .photos import refuse_strip
        from .transform import make_transform

        if self._transform is None:
            refuse_strip((self.pixels.shape[2], self.pixels.shape[1]), self.origin)
            self._transform = make_transform(self.preprocess)
        photo = Image.fromarray(self.pixels[index])
        return np.asarray(self._transform(photo), dtype=np.float32)

    def fingerprint(self) -> str:
        """Hash of the pixels, the labels and the preprocessing; they are read once."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        digest = start_hash(self.preprocess, self.labels)
        for image in self.pixels:  # one by one: a copy of all of them may not fit into memory
            digest.update(np.ascontiguousarray(image).tobytes())
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
