"""What a folder holds: pictures by class folder, and everything else counted and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from vitrim.calibration.images.folders import list_tree, some
from vitrim.exporter.core.errors import InputError


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_pictures_are_found_at_any_depth_and_the_rest_is_named(tmp_path: Path) -> None:
    save(*(tmp_path / name for name in ("b.png", "cat/2.JPG", "cat/deep/1.png", "ant/a.webp")))
    write(tmp_path / "a.txt", tmp_path / "cat" / "Thumbs.db", tmp_path / "meta" / "list.csv")
    (tmp_path / "none").mkdir()
    tree = list_tree(tmp_path)
    assert [path.name for path in tree.flat] == ["b.png"]
    assert {name: [path.name for path in paths] for name, paths in tree.folders.items()} == {
        "ant": ["a.webp"],
        "cat": ["2.JPG", "1.png"],
        "meta": [],
        "none": [],
    }
    assert [path.name for path in tree.pictures] == ["a.webp", "2.JPG", "1.png", "b.png"]
    assert tree.empty == {"none"}
    assert tree.skipped == ["a.txt", "cat/Thumbs.db", "meta/list.csv"]
    assert tree.skipped_words() == f"3 of 7 files in {tmp_path} are no pictures: a.txt, cat/Thumbs.db, meta/list.csv"


@pytest.mark.parametrize(
    "left",
    [
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._a.jpg",
        "__MACOSX/a.jpg",
        "@eaDir/a.jpg",
        ".small/a.png",
        "cat/.a.jpg",
    ],
)
def test_what_systems_leave_behind_is_no_picture(tmp_path: Path, left: str) -> None:
    save(tmp_path / "cat" / "a.png")
    write(tmp_path / left)
    tree = list_tree(tmp_path)
    assert [path.name for path in tree.pictures] == ["a.png"]
    assert set(tree.folders) == {"cat"}
    name = left if left.startswith("cat") or "/" not in left else left.split("/")[0] + "/"
    assert tree.skipped_words() == f"1 of 2 files in {tmp_path} is no picture: {name}"


def test_links_in_a_circle_fifos_and_folders_named_like_pictures_are_named(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "back").symlink_to(tmp_path)
    (tmp_path / "dog").symlink_to(tmp_path / "cat")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "odd.jpg").mkdir()
    tree = list_tree(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tree.pictures] == ["cat/a.png", "dog/a.png"]
    assert tree.skipped == ["cat/back/", "dog/back/", "lost.jpg", "pipe.jpg"]


def test_only_pictures_say_nothing_and_many_names_are_cut(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert list_tree(tmp_path).skipped_words() is None
    write(*(tmp_path / f"{index:04}.txt" for index in range(1200)))
    assert list_tree(tmp_path).skipped_words() == (
        f"1,200 of 1,201 files in {tmp_path} are no pictures: 0000.txt, 0001.txt, 0002.txt, ..."
    )
    assert some(["a"]) == "a"
    assert some(["a\nb\x1b[2J", "x" * 99]) == "'a\\nb\\x1b[2J', " + "x" * 60 + "..."


def test_a_folder_that_goes_away_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*gone: no such file"):
        list_tree(tmp_path / "gone")
