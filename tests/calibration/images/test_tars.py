"""Photos in tar files are those of the unpacked folders: the same pixels, labels, order and hash."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_photos import photo, tarred, unpacked

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.packed import PackedPhotos
from vitrim.calibration.images.tars import list_tars
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess

PREPROCESS = Preprocess((3, 8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "center")
FOLDERS = {f"{name}/{name}_{index}.png": photo(7 * at + index) for at, name in enumerate("cab") for index in (2, 1)}


def opened(path: Path, classes: int = 3, **options: Any) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return open_images(path, PREPROCESS, classes=classes, note=notes.append, **options), notes


def test_a_tar_of_class_folders_is_the_folder(tmp_path: Path) -> None:
    tarred({f"./data/val/{name}": data for name, data in FOLDERS.items()}, tmp_path / "val.tar")
    packed, said = opened(tmp_path / "val.tar")
    plain, told = opened(unpacked(tmp_path / "val", FOLDERS))
    assert isinstance(packed, PackedPhotos)
    assert said == told == ["labels: 3 folders in order of their names, a = 0 to c = 2"]
    assert packed.labels.tolist() == plain.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(np.array_equal(packed.read(index), plain.read(index)) for index in range(6))
    assert packed.fingerprint() == plain.fingerprint()
    assert packed.names[0] == f"{tmp_path}/val.tar/data/val/a/a_1.png"


@pytest.mark.parametrize("nested", [True, False])
def test_imagenet_s_tars_of_classes(tmp_path: Path, nested: bool) -> None:
    classes = {f"n0144{name}764.tar": {f"{name}_{index}.JPEG": photo(index) for index in range(3)} for name in "012"}
    if nested:
        tarred({name: tarred(files) for name, files in classes.items()}, tmp_path / "train.tar")
    else:
        for name, files in classes.items():
            tarred(files, tmp_path / "train" / name)
    found, said = opened(tmp_path / ("train.tar" if nested else "train"), class_file=None)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(found.read(0), found.read(3))
    assert not np.array_equal(found.read(0), found.read(1))
    assert len(said) == 1


def test_webdataset_s_shards_say_their_classes(tmp_path: Path) -> None:
    for shard in range(2):
        files: dict[str, bytes] = {}
        for index in range(4 * shard, 4 * shard + 4):
            files |= {
                f"{index:04}.png": photo(index),
                f"{index:04}.cls": b"%d\n" % (index % 3),
                f"{index:04}.json": b"{}",
            }
        tarred(files, tmp_path / "shards" / f"shard-{shard:06}.tar")
    found, said = opened(tmp_path / "shards", count=4)
    assert (found.labels.tolist(), said) == ([1, 0, 2, 1], [])
    assert [name[-8:] for name in found.names] == ["0001.png", "0003.png", "0005.png", "0007.png"]
    with pytest.raises(InputError, match=r"\.cls reaches from 0 to 2, but the model's classes are 0 to 1"):
        opened(tmp_path / "shards", classes=2)
    assert opened(tmp_path / "shards", classes=None)[0].labels is None  # type: ignore[arg-type]


def test_photos_alone_have_no_labels_and_leftovers_are_left(tmp_path: Path) -> None:
    tarred({"a.png": photo(0), "._a.png": b"mac", "notes.txt": b"", "b.PNG": photo(1)}, tmp_path / "x.tar")
    found, said = opened(tmp_path / "x.tar")
    assert (len(found), found.labels) == (2, None)
    assert said == [f"1 of 3 files in {tmp_path}/x.tar is no picture: notes.txt"]


def test_a_photo_can_be_read_in_another_process_and_in_parts(tmp_path: Path) -> None:
    tarred(FOLDERS, tmp_path / "x.tar")
    found, _ = opened(tmp_path / "x.tar")
    first = found.read(4)
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.read(4), first)
    assert np.array_equal(found.part([4], None).read(0), first)


def test_what_is_no_plain_tar_is_refused(tmp_path: Path) -> None:
    whole = tarred(FOLDERS)
    for name, data in (("text", b"no tar" * 99), ("gzip", tarred(FOLDERS, mode="w:gz")), ("cut", whole[:700])):
        (tmp_path / f"{name}.tar").write_bytes(data)
    for name in ("text", "gzip"):
        with pytest.raises(InputError, match=rf"{name}\.tar is no plain, whole tar file"):
            list_tars([tmp_path / f"{name}.tar"])
    with pytest.raises(InputError, match=r"cut\.tar"):
        list_tars([tmp_path / "cut.tar"])
    tarred({"a.png": photo(0), "a.cls": b"cat"}, tmp_path / "word.tar")
    with pytest.raises(InputError, match=r"a\.cls must hold the index of a class, but holds 'cat'"):
        list_tars([tmp_path / "word.tar"])


def test_a_tar_that_has_become_shorter_is_said(tmp_path: Path) -> None:
    tarred(FOLDERS, tmp_path / "x.tar")
    found, _ = opened(tmp_path / "x.tar")
    with open(tmp_path / "x.tar", "r+b") as stream:
        stream.truncate(600)
    with pytest.raises(InputError, match="has become shorter"):
        found.read(len(found) - 1)
