"""Sources of images: which are chosen, hashes, halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import batches
from vitrim.calibration.images.sources import choose, halves
from vitrim.exporter.core.preprocess import Preprocess

PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")


def ramp(width: int = 40, height: int = 30) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def test_counts_spread_evenly() -> None:
    assert choose(1000, count=4) == [125, 375, 625, 875]
    assert choose(10, count=99) == list(range(10))
    assert choose(10, every=3, offset=1) == [1, 4, 7]


def test_fingerprints_follow_bytes_and_preprocessing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = open_images(tmp_path, PLAIN).fingerprint()
    assert open_images(tmp_path, PLAIN).fingerprint() == first
    other = Preprocess((3, 16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    assert open_images(tmp_path, other).fingerprint() != first
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "a.png")
    assert open_images(tmp_path, PLAIN).fingerprint() != first


def test_halves_are_even_and_odd_images_with_what_belongs_to_them() -> None:
    pixels = np.linspace(-1, 1, 5 * 3 * 32 * 32, dtype=np.float32).reshape(5, 3, 32, 32)
    whole = ArrayImages(pixels, np.array([4, 3, 2, 1, 0]), PLAIN, "x")
    even, odd = halves(whole)
    assert (list(even.names), list(odd.names)) == (["x[0]", "x[2]", "x[4]"], ["x[1]", "x[3]"])
    assert even.labels is not None
    assert even.labels.tolist() == [4, 2, 0]
    np.testing.assert_array_equal(np.concatenate(list(batches(odd, 2))), pixels[1::2])
    assert len({even.fingerprint(), odd.fingerprint(), whole.fingerprint()}) == 3
    assert halves(ArrayImages(pixels, None, PLAIN, "x"))[0].labels is None
