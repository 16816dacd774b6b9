"""Packed photos are decoded as files are, and a fault names where the photo lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from packed_photos import photo

from vitrim.calibration.images.packed import PackedPhotos
from vitrim.calibration.images.reading import read_batches
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess

PREPROCESS = Preprocess((3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "center")


@dataclass(frozen=True)
class Held:
    seed: int

    @property
    def name(self) -> str:
        return f"held[{self.seed}]"

    def bytes(self) -> bytes:
        return photo(self.seed) if self.seed >= 0 else b"damaged"


def test_workers_read_them_in_order() -> None:
    source = PackedPhotos([Held(index) for index in range(70)], None, PREPROCESS)
    found = np.concatenate(list(read_batches(source, range(70), 32)))
    assert found.shape == (70, 3, 8, 8)
    assert all(np.array_equal(found[index], source.read(index)) for index in (0, 33, 69))


def test_a_fault_names_the_photo() -> None:
    source = PackedPhotos([Held(0), Held(-1)], None, PREPROCESS)
    assert source.names == ["held[0]", "held[-1]"]
    with pytest.raises(InputError, match=r"^held\[-1\] is not an image that Pillow can read"):
        source.read(1)


def test_the_hash_is_of_bytes_labels_and_preprocessing() -> None:
    photos = [Held(0), Held(1)]
    hashes = {
        PackedPhotos(photos, None, PREPROCESS).fingerprint(),
        PackedPhotos(photos[::-1], None, PREPROCESS).fingerprint(),
        PackedPhotos(photos, np.array([0, 1]), PREPROCESS).fingerprint(),
    }
    assert len(hashes) == 3
