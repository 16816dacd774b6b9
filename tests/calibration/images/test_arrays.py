"""An .npz: photos or inputs, labels that are the model's classes, and one line for everything else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.calibration.images.arrays import check_labels, open_npz
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess

PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")
PHOTOS = np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), dtype=np.uint8)
INPUTS = np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def test_labels_are_taken_with_their_images(tmp_path: Path) -> None:
    heard: list[str] = []
    path = saved(tmp_path, image=INPUTS, label=np.array([3, 0, 9, 1], np.uint8))
    source = open_npz(path, PLAIN, classes=10, count=2, note=heard.append)
    assert source.labels is not None
    assert (source.labels.tolist(), source.labels.dtype, heard) == ([0, 1], np.int64, [])
    np.testing.assert_array_equal(source.pixels, INPUTS[[1, 3]])


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([0, 1, 2, 10], "label reaches from 0 to 10, but the model's classes are 0 to 9$"),
        ([1, 2, 3, 10], r"label reaches from 1 to 10, .* 0 to 9; do they count from 1\?$"),
        ([-1, 1, 2, 3], "label reaches from -1 to 3"),
        (np.array([0, 1, 2, 2**64 - 1], np.uint64), "label reaches from 0 to 18446744073709551615"),
        ([0, 1, 2], r"label must be one integer an image, but is int64 \[3\]"),
        ([[0, 1, 2, 3]], r"one integer an image, but is int64 \[1, 4\]"),
        (np.eye(4, dtype=int), "one integer an image"),
        ([0.0, 1.0, 2.0, 3.0], "one integer an image, but is float64"),
        ([True, False, True, False], "one integer an image, but is bool"),
        (["a", "b", "c", "d"], "one integer an image, but is <U1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, label: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_npz(saved(tmp_path, image=PHOTOS, label=label), PLAIN, classes=10)


def test_without_classes_labels_are_held_against_nothing() -> None:
    assert check_labels(np.array([5, 7]), 2, None, "label").tolist() == [5, 7]
    assert check_labels(np.zeros(0, int), 0, 3, "label").tolist() == []


def test_other_arrays_are_named_where_labels_may_be_among_them(tmp_path: Path) -> None:
    heard: list[str] = []
    path = saved(tmp_path, image=INPUTS, targets=np.arange(4))
    assert open_npz(path, PLAIN, classes=10, note=heard.append).labels is None
    assert heard == [f"no labels: {path} has no array named label; the arrays targets are not read"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            PHOTOS.transpose(0, 3, 1, 2),
            r"uint8 \[4, 3, 40, 30\].*; the channels come first here: image.transpose\(0, 2, 3, 1\)",
        ),
        (
            INPUTS.transpose(0, 2, 3, 1),
            r"\[4, 32, 32, 3\].*channels come last here: image.transpose\(0, 3, 1, 2\)",
        ),
        (INPUTS[0], r"for one image: image\[None\]"),
        (PHOTOS[..., :1], r"uint8 \[4, 40, 30, 1\]; give uint8 \[n, height, width, 3\]"),
        (PHOTOS.astype(np.int64), "int64"),
        (PHOTOS[:, :0], r"uint8 \[4, 0, 30, 3\]"),
        (np.zeros(3), r"float64 \[3\]"),
        ((INPUTS + 1) * 127.5, "image holds values that look like pixels of 0 to 255"),
        (np.full_like(INPUTS, np.inf), "image holds NaN or Inf"),
        (INPUTS * 1e30, "image holds values that reach from"),
        (PHOTOS[:0], "image holds no images to take"),
    ],
)
def test_images_of_another_kind_are_refused_with_what_to_write(tmp_path: Path, image: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_npz(saved(tmp_path, image=image), PLAIN, classes=10)


@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_of_as_many_channels_as_the_model_has_are_normalized(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 24, 40, channels), dtype=np.uint8)
    mean, std = tuple(np.linspace(0.2, 0.4, channels)), tuple(np.linspace(0.5, 0.6, channels))
    wanted = Preprocess((channels, 24, 40), mean, std, "bicubic", 1.0, "center")
    source = open_npz(saved(tmp_path, image=pixels), wanted)
    expected = (pixels[2].transpose(2, 0, 1) / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    np.testing.assert_allclose(source.read(2), expected, atol=1e-5)
    with pytest.raises(InputError, match=rf"3\] photos, uint8 \[n, 24, 40, {channels}\] pixels or float32"):
        open_npz(saved(tmp_path, image=pixels[:, :20]), wanted)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ((INPUTS + 1) / 2, "all values lie from 0 to 1"),
        (PHOTOS // 200, "no pixel is above 1"),
    ],
)
def test_doubtful_images_are_told(tmp_path: Path, image: np.ndarray, said: str) -> None:
    heard: list[str] = []
    assert len(open_npz(saved(tmp_path, image=image), PLAIN, note=heard.append)) == 4
    assert len(heard) == 1
    assert said in heard[0]


def test_what_is_no_npz_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(InputError, match="not a whole .npz"):
        open_npz(tmp_path / "a.npz", PLAIN)
    np.save(tmp_path / "a.npy", INPUTS)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"is a bare array, not an \.npz; save it with np\.savez"):
        open_npz(tmp_path / "a.npz", PLAIN)
    for path, said in ((tmp_path, "it is a folder"), (tmp_path / "none.npz", "no such file")):
        with pytest.raises(InputError, match=said):
            open_npz(path, PLAIN)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    save(path, image=PHOTOS[:1, :20, :20], label=np.arange(1))
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            open_npz(path, PLAIN, classes=10)
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 40
