"""What a path names, listed: folders, class folders, .npz files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_all
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess

PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")


def ramp(width: int = 40, height: int = 30) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        open_images(tmp_path, PLAIN)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        open_images(tmp_path, PLAIN)
    with pytest.raises(InputError, match="there is no"):
        open_images(tmp_path / "none", PLAIN)


def test_class_folders_give_labels_only_if_they_match_the_model(tmp_path: Path) -> None:
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    source = open_images(tmp_path, PLAIN, classes=2)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert Path(source.names[0]).parent.name == "ant"
    assert open_images(tmp_path, PLAIN, classes=1000).labels is None
    odd = open_images(tmp_path, PLAIN, classes=2, every=2, offset=1)
    even = open_images(tmp_path, PLAIN, classes=2, every=2)
    assert set(odd.names) | set(even.names) == set(source.names)
    assert not set(odd.names) & set(even.names)
    with pytest.raises(InputError, match="only 6 images, none left"):
        open_images(tmp_path, PLAIN, offset=9)


def test_what_is_skipped_and_how_labels_came_is_heard_once_there_are_images(tmp_path: Path) -> None:
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    heard: list[str] = []
    source = open_images(tmp_path, PLAIN, classes=1000, note=heard.append)
    assert source.labels is not None
    assert {Path(name).parent.name: label for name, label in zip(source.names, source.labels, strict=True)} == {
        "2": 2,
        "10": 10,
    }
    assert heard == [
        f"2 of 4 files in {tmp_path} are no pictures: __MACOSX/, a.txt",
        "labels: 2 folders named by number, class = name",
    ]
    heard.clear()
    with pytest.raises(InputError, match=r"only 2 images, none left .*; 2 of 4 files in .* are no pictures"):
        open_images(tmp_path, PLAIN, offset=2, note=heard.append)
    assert heard == []


def test_labels_are_chosen_with_their_images(tmp_path: Path) -> None:
    for index in range(30):
        (tmp_path / f"{index}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}" / "a.png")
    source = open_images(tmp_path, PLAIN, classes=30, count=7)
    assert source.labels is not None
    assert [int(Path(name).parent.name) for name in source.names] == source.labels.tolist()


def test_a_class_file_goes_with_a_folder_only(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("a\nb\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 8, 8, 3), np.uint8))
    for name in ("a.png", "a.npz"):
        with pytest.raises(InputError, match=rf"^evaluate\.classes names class folders, and .*{name} is none"):
            open_images(tmp_path / name, PLAIN, classes=2, class_file=str(tmp_path / "c.txt"), where="evaluate")
    with pytest.raises(InputError, match=r"has no class folders with pictures"):
        open_images(tmp_path, PLAIN, classes=2, class_file=str(tmp_path / "c.txt"))


def test_odd_paths_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.npz")
    for path, said in (
        (tmp_path / "pipe", "it is a FIFO"),
        (tmp_path / "pipe.npz", "it is a FIFO"),
        (Path("/dev/zero"), "it is a device"),
        (tmp_path / ("x" * 300), "there is no"),
        (Path("a\0b"), "there is no"),
    ):
        with pytest.raises(InputError, match=said):
            open_images(path, PLAIN)


def test_npz_of_photos_and_of_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", image=photos, label=np.arange(5))
    source = open_images(tmp_path / "photos.npz", PLAIN, count=2)
    assert source.labels is not None
    assert (len(source), source.labels.tolist()) == (2, [1, 3])
    inputs = rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", x=inputs)
    np.testing.assert_array_equal(read_all(open_images(tmp_path / "inputs.npz", PLAIN)), inputs)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": np.zeros(3)}, "no array named image"),
        ({"image": np.zeros((2, 3, 8, 8), np.float32)}, r"\[2, 3, 8, 8\].*preprocessed"),
        ({"image": np.zeros((0, 8, 8, 3), np.uint8)}, "holds no images"),
        ({"image": np.full((1, 3, 32, 32), np.nan, np.float32)}, "NaN"),
        ({"image": np.zeros((2, 8, 8, 3), np.uint8), "label": np.zeros(3, int)}, "one integer an image"),
        ({"image": np.array([{}], dtype=object)}, "not a whole .npz of plain arrays"),
    ],
)
def test_other_npz_files_are_refused_with_the_reason(tmp_path: Path, arrays: dict, reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        open_images(tmp_path / "a.npz", PLAIN)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((9, 8, 8, 3), np.uint8))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(InputError, match="not a whole"):
        open_images(tmp_path / "a.npz", PLAIN)
