"""Images as sources: order, spread, hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.sources import ArrayImages, batches, choose, halves
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


def test_labels_are_part_of_a_fingerprint(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    prints = {
        ArrayImages(pixels, labels, PLAIN, "x").fingerprint() for labels in (None, np.array([0, 1]), np.array([1, 0]))
    }
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "other.json").write_text('{"a": 1, "b": 0}')
    for classes, file in ((None, None), (2, None), (2, str(tmp_path / "other.json"))):
        prints.add(open_images(tmp_path, PLAIN, classes=classes, class_file=file).fingerprint())
    assert len(prints) == 6


def test_batches_keep_the_order(tmp_path: Path) -> None:
    inputs = np.linspace(-1, 1, 7 * 3 * 32 * 32, dtype=np.float32).reshape(7, 3, 32, 32)
    np.savez(tmp_path / "a.npz", image=inputs)
    parts = list(batches(open_images(tmp_path / "a.npz", PLAIN), 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), inputs)


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
