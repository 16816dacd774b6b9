"""What may be written where a user says: one's own kind of file, and by force a plain file that is not read."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, VitrimError
from vitrim.exporter.core.inputs import read_json
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.outputs import Output, check_output, output_of, refuse_over_inputs
from vitrim.exporter.runtime.parity import Parity


def read(path: Path) -> None:
    if not isinstance(read_json(path, "list", "a test"), list):
        raise InputError("no list")


LIST = Output("list", read, "list.json")


def bundle_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_manifest(folder, {}, [])
    return folder


def test_a_new_place_and_one_s_own_kind_of_file_are_free(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new" / "deep" / "a.json", LIST) is None
    (tmp_path / "a.json").write_text("[1]")
    assert check_output(tmp_path / "a.json", LIST) == f"replaces the list that was at {tmp_path / 'a.json'}"
    (tmp_path / "linked").symlink_to(tmp_path)  # a parent that is a link is fine
    assert check_output(tmp_path / "linked" / "a.json", LIST) is not None
    assert list(tmp_path.iterdir()) != []


@pytest.mark.parametrize("text", ["", "{}", "\x00\xff", "[" * 100_000, "[1", "photo"])
def test_another_s_file_is_replaced_by_force_alone(tmp_path: Path, text: str) -> None:
    place = tmp_path / "a.json"
    place.write_text(text)
    with pytest.raises(InputError, match=r"a\.json exists and is no list; name another file, or replace it with --for"):
        check_output(place, LIST)
    with pytest.raises(InputError, match=r"a\.json exists and is no list; move it$"):
        check_output(place, LIST, instead="move it")
    assert check_output(place, LIST, force=True) == f"replaces the file that was at {place}"
    with pytest.raises(InputError, match=r"a\.json exists; name another file, or replace it with --force"):
        check_output(place, Output("recipe", None, "r.yaml"))


def listen(place: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(place.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)
    os.chdir(here)
    os.close(here)


MADE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda place: place.symlink_to("list.json"), "is a link"),
    "dangling link": (lambda place: place.symlink_to("nowhere"), "is a link"),
    "circle": (lambda place: place.symlink_to(place.name), "is a link|is no path that can be written"),
    "FIFO": (os.mkfifo, "is a FIFO"),
    "socket": (listen, "is a socket"),
    "folder": (lambda place: place.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", MADE)
def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path, what: str, force: bool) -> None:
    (tmp_path / "list.json").write_text("[]")
    make, said = MADE[what]
    make(tmp_path / "a.json")
    with pytest.raises(InputError, match=said):
        check_output(tmp_path / "a.json", LIST, force=force)
    assert (tmp_path / "list.json").read_text() == "[]"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device_is_never_replaced(device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"no {device} here")
    for force in (False, True):
        with pytest.raises(VitrimError, match=r"is a device|permission denied"):
            check_output(device, LIST, force=force)


def test_a_sparse_giant_is_not_read_through(tmp_path: Path) -> None:
    with open(tmp_path / "a.json", "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InputError, match="exists and is no list"):
        check_output(tmp_path / "a.json", LIST)


def test_no_force_writes_over_what_is_read(tmp_path: Path) -> None:
    recipe, photos = tmp_path / "r.yaml", tmp_path / "photos"
    recipe.write_text("[]")  # even where it is of the right kind
    photos.mkdir()
    (photos / "a.jpg").write_text("a photo")
    (photos / "b.json").write_text("[]")
    os.link(recipe, tmp_path / "again.yaml")
    (tmp_path / "way").symlink_to(tmp_path)
    inputs = {"the recipe": recipe, "the images": photos, "the checkpoint": tmp_path / "gone"}
    for place in (recipe, tmp_path / "way" / "r.yaml", tmp_path / "photos" / ".." / "r.yaml", tmp_path / "again.yaml"):
        for force in (False, True):
            with pytest.raises(InputError, match="is the recipe, which this run reads; name another file"):
                check_output(place, LIST, force=force, inputs=inputs)
    with pytest.raises(InputError, match="is the checkpoint"):
        check_output(tmp_path / "gone", LIST, force=True, inputs=inputs)
    with pytest.raises(InputError, match=r"a\.jpg lies in the images, which this run reads"):
        check_output(photos / "a.jpg", LIST, force=True, inputs=inputs)
    assert check_output(photos / "b.json", LIST, inputs=inputs) is not None


@pytest.mark.parametrize("place", ["b/a.json", "b/deep/er/a.json", "way/a.json", "b/x/../a.json", "other/../b/a.json"])
def test_nothing_is_written_into_any_bundle(tmp_path: Path, place: str) -> None:
    folder = bundle_at(tmp_path / "b")
    (tmp_path / "other").mkdir()
    (tmp_path / "way").symlink_to(folder)
    for text in ((folder / "manifest.json").read_text(), '{"format": "vitrim-bundle/7", "fil'):  # damaged, and newer
        (folder / "manifest.json").write_text(text)
        for force in (False, True):
            with pytest.raises(InputError, match="lies in the bundle .*, which stays as it was published"):
                check_output(tmp_path / place, LIST, force=force)
    (folder / "manifest.json").write_text('{"name": "an app", "format": "other"}')
    assert check_output(tmp_path / place, LIST) is None


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file/a.json", "a part of the path is a file"),
        ("file/deep/a.json", "a part of the path is a file"),
        ("dangling/deep/a.json", "a part of the path is a file"),
        ("n" * 250, "the name is too long"),
        ("n" * 300, "the name is too long"),
        ("n" * 5000 + "/a.json", "the name is too long"),
        ("a\0b", "is no path that can be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(VitrimError, match=said) as caught:
        check_output(tmp_path / place, LIST)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentLackError, match="permission denied"):
        check_output(tmp_path / "a.json", LIST)


def test_records_know_their_own_files(tmp_path: Path) -> None:
    kind = output_of(Parity, "parity report")
    assert (kind.label, kind.example) == ("parity report", "parity.json")
    Parity(1e-4, 1e-5, ()).write(tmp_path / "p.json")
    assert check_output(tmp_path / "p.json", kind) is not None
    (tmp_path / "p.json").write_text(json.dumps({"name": "a user's"}))
    with pytest.raises(InputError, match="is no parity report"):
        check_output(tmp_path / "p.json", kind)


def test_a_folder_that_holds_what_is_read_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "work" / "r.yaml"
    recipe.parent.mkdir()
    recipe.write_text("")
    (tmp_path / "way").symlink_to(tmp_path)
    for final, verb in ((tmp_path / "work", "holds"), (tmp_path / "way" / "work", "holds"), (tmp_path, "holds")):
        with pytest.raises(InputError, match=f"{verb} the recipe .*; name another folder"):
            refuse_over_inputs(final, {"the recipe": recipe})
    with pytest.raises(InputError, match="work is the images"):
        refuse_over_inputs(tmp_path / "work", {"the images": tmp_path / "work"})
    refuse_over_inputs(tmp_path / "work" / "out", {"the recipe": recipe, "the images": tmp_path / "work"})
