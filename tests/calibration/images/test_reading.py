"""Reading in batches, and ahead with workers."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import small_vit
from PIL import Image

from vitrim.calibration.images import reading
from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import batches, read_batches, workers_for
from vitrim.calibration.images.sources import EightBit, ImageSource
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess
from vitrim.exporter.pruning.load import preprocessing

PREPROCESS = preprocessing(small_vit())
PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")


def test_batches_keep_the_order(tmp_path: Path) -> None:
    inputs = np.linspace(-1, 1, 7 * 3 * 32 * 32, dtype=np.float32).reshape(7, 3, 32, 32)
    np.savez(tmp_path / "a.npz", image=inputs)
    parts = list(batches(open_images(tmp_path / "a.npz", PLAIN), 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), inputs)


@pytest.fixture
def photos(tmp_path: Path) -> ImageSource:
    draw = np.random.default_rng(0)
    for index in range(70):
        pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:03}.png")
    return open_images(tmp_path, PREPROCESS)


def test_workers_give_what_one_process_gives(photos: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3)))
    assert workers_for(photos, 70) == 2
    assert workers_for(EightBit(photos, PREPROCESS), 70) == 2
    assert workers_for(photos, 63) == 0
    ahead = list(batches(photos, 32))
    monkeypatch.setattr(reading, "FEWEST", 1000)
    alone = list(batches(photos, 32))
    assert [piece.shape for piece in ahead] == [(32, 3, 64, 64), (32, 3, 64, 64), (6, 3, 64, 64)]
    for one, other in zip(ahead, alone, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32


@pytest.mark.parametrize("cores", [1, 3])
def test_a_broken_photo_is_named_in_one_line(
    photos: ImageSource, tmp_path: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    (tmp_path / "050.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"050\.png is not an image that Pillow can read") as error:
        list(batches(photos, 16))
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()  # workers that still have batches to hand over took 5 s each to end


@pytest.mark.slow
def test_any_order_can_be_read(photos: ImageSource) -> None:
    (piece,) = read_batches(photos, [5, 3, 5], 8)
    np.testing.assert_array_equal(piece[0], photos.read(5))
    np.testing.assert_array_equal(piece[1], photos.read(3))
    np.testing.assert_array_equal(piece[2], piece[0])


def test_what_lies_in_memory_needs_no_workers() -> None:
    assert workers_for(ArrayImages(np.zeros((100, 3, 64, 64), np.float32), None, PREPROCESS, "x"), 100) == 0
