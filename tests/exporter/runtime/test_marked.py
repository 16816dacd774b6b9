"""Marked folders: surely vitrim's, there or not in one step, and held by one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.marked import (
    MARKER,
    cache_folder,
    drop_if_empty,
    is_marked,
    locked,
    make_marked,
    refuse_unmarked,
    write_marker,
)


def ignore(text: str) -> None:
    """A note that nobody reads."""


def test_the_folder_of_an_output_lies_hidden_beside_it(tmp_path: Path) -> None:
    assert cache_folder(tmp_path / "b.json") == tmp_path / ".b.json.cache"


def test_a_marked_folder_is_made_once_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    root = tmp_path / "deep" / ".out.cache"
    make_marked(root)
    inode = root.stat().st_ino
    make_marked(root)
    assert (root.stat().st_ino, is_marked(root)) == (inode, True)
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    (root / "stranger").write_text("")
    drop_if_empty(root)
    assert root.is_dir()
    (root / "stranger").unlink()
    drop_if_empty(root)
    assert list(root.parent.iterdir()) == []


def test_a_user_s_empty_folder_stays(tmp_path: Path) -> None:
    root = tmp_path / "stages"
    root.mkdir()
    for _ in range(2):
        make_marked(root)
        with locked(root, ignore):
            assert is_marked(root)
        assert list(root.iterdir()) == []


def test_what_is_not_marked_is_refused(tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    make_marked(marked)
    places = {name: tmp_path / name for name in ("link", "dangling", "file", "other", "linked marker", "forged")}
    places["link"].symlink_to(marked)
    places["dangling"].symlink_to("nowhere")
    places["file"].write_text("")
    for name in ("other", "linked marker", "forged"):
        places[name].mkdir()
    (places["other"] / ".ssh").mkdir()
    (places["linked marker"] / MARKER).symlink_to(marked / MARKER)
    (places["forged"] / MARKER).mkdir()
    for name, place in places.items():
        assert not is_marked(place), name
        with pytest.raises(InputError, match="is a link or a file|is no cache of vitrim's"):
            refuse_unmarked(place)
        with pytest.raises(InputError), locked(place, ignore):
            pass
    assert sorted(path.name for path in places["other"].iterdir()) == [".ssh"]


def test_who_holds_it_is_said(tmp_path: Path) -> None:
    root, notes = tmp_path / ".out.cache", list[str]()
    with locked(root, ignore):
        assert json.loads((root / MARKER).read_text())["process"] == os.getpid()
        held_by_me = pytest.raises(
            EnvironmentLackError, match=f"process {os.getpid()} is at work in .*; try again when"
        )
        with held_by_me, locked(root, ignore, wait=False):
            pass
        second = threading.Thread(target=lambda: locked(root, notes.append).__enter__())
        second.start()
        while not notes:
            time.sleep(0.01)
        assert notes == [f"process {os.getpid()} is at work on the same output ({root}); waiting for it"]
    second.join(10)
    assert not second.is_alive()


def test_a_holder_on_another_machine_is_said_to_be_there(tmp_path: Path) -> None:
    root = tmp_path / ".out.cache"
    with locked(root, ignore):
        head = json.dumps({"format": "vitrim-cache/1", "process": 7, "machine": "far"}).ljust(511) + "\n"
        (root / MARKER).write_text(head)
        with pytest.raises(EnvironmentLackError, match="process 7 on far is at work"), locked(root, ignore, wait=False):
            pass
        (root / MARKER).write_text('{"format": "vitrim-cache/1", torn')
        held = pytest.raises(EnvironmentLackError, match="another process is at work")
        with held, locked(root, ignore, wait=False):
            pass


def test_many_share_it_and_nobody_has_it_alone_meanwhile(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    held = pytest.raises(EnvironmentLackError, match="another process")
    with (
        locked(root, ignore, shared=True),
        locked(root, ignore, shared=True),
        held,
        locked(root, ignore, wait=False),
    ):
        pass
    assert is_marked(root)
    with locked(root, ignore, wait=False):
        pass
    assert not root.exists()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    root = tmp_path / ".out.cache"
    code = f"""
from pathlib import Path
from vitrim.exporter.runtime.marked import locked
with locked(Path({str(root)!r}), print):
    print("held", flush=True)
    input()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(EnvironmentLackError, match=f"process {other.pid} is at work"), locked(root, ignore, wait=False):
        pass
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with locked(root, ignore, wait=False):
        assert json.loads((root / MARKER).read_text())["process"] == os.getpid()
    assert not root.exists()


HASTE = """
import os, sys
from pathlib import Path
from vitrim.exporter.runtime.marked import MARKER, locked
root, mine = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(150):
    with locked(root, lambda text: None):
        handle = os.open(mine, os.O_CREAT | os.O_EXCL)  # fails where somebody else is in here too
        (root / "stage").mkdir()
        (root / "stage").rmdir()
        os.close(handle)
        mine.unlink()
print("done")
"""


def test_processes_in_haste_take_turns_and_never_miss_a_file(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HASTE, str(tmp_path / ".out.cache"), str(tmp_path / "alone")]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [run.communicate(timeout=60) for run in runs]
    assert ends == [("done\n", "")] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_s_file_that_comes_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = tmp_path / ".out.cache", os.rename
    make_marked(root)

    def rename(source: Path, target: Path) -> None:
        if source == root:
            (root / "mine").write_text("mine")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    drop_if_empty(root)
    assert (root / "mine").read_text() == "mine"


def test_a_folder_that_is_made_at_the_same_time_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = tmp_path / ".out.cache", os.rename

    def rename(source: Path, target: Path) -> None:
        if not root.exists():
            root.mkdir()
            write_marker(root)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    make_marked(root)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert [path.name for path in root.iterdir()] == [MARKER]
