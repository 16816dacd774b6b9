"""Images that are already in memory, as a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...exporter.core.preprocess import Preprocess, from_pixels
from .photos import refuse_strip
from .sources import start_hash
from .transform import make_transform

RGB = 3  # channels of a photo


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
