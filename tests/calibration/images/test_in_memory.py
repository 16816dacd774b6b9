"""Images in memory as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.listing import open_images
from vitrim.exporter.core.preprocess import Preprocess

PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")


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


def test_a_part_has_its_own_images_labels_and_names() -> None:
    values = np.linspace(-1, 1, 5 * 3 * 32 * 32, dtype=np.float32).reshape(5, 3, 32, 32)
    part = ArrayImages(values, np.arange(5), PLAIN, "x").part(slice(1, 3))
    np.testing.assert_array_equal(part.read(1), values[2])
    assert part.labels is not None
    assert part.labels.tolist() == [1, 2]
    assert list(part.names) == ["x[1:3][0]", "x[1:3][1]"]


def test_photos_are_resized_and_pixels_of_the_models_channels_only_normalized() -> None:
    photos = np.full((1, 50, 40, 3), 255, np.uint8)
    np.testing.assert_array_equal(ArrayImages(photos, None, PLAIN, "x").read(0), np.ones((3, 32, 32), np.float32))
    gray = Preprocess((1, 32, 32), (0.5,), (0.5,), "bicubic", 1.0, "center")
    pixels = np.zeros((1, 32, 32, 1), np.uint8)
    np.testing.assert_array_equal(ArrayImages(pixels, None, gray, "x").read(0), -np.ones((1, 32, 32), np.float32))
