"""Files are whole or absent, and refusals of the system become one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.files import (
    atomic_path,
    atomic_write,
    explain_os_error,
    explain_read_error,
    explain_stray_error,
    link,
    ordinary_mode,
    sha256,
)


def test_writing_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o400


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text(str(1 // 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(EnvironmentLackError, match="the disk is full"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "permission denied"), (errno.ENOTDIR, "a file, not a folder")],
)
def test_reasons_come_with_a_way_out(code: int, words: str) -> None:
    assert words in str(explain_os_error(OSError(code, "x"), "out"))


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentLackError, match="cannot write"):
        atomic_write(tmp_path / "file" / "a.txt", "x")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="cannot read"):
        sha256(tmp_path / "none")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    error = OSError(errno.EACCES, "Permission denied")
    assert str(explain_read_error(error, tmp_path / "a")) == f"cannot read {tmp_path / 'a'}: permission denied"
    assert str(explain_read_error(OSError("Odd"), "a")) == "cannot read a: odd"


def test_what_was_only_read_is_not_called_written(tmp_path: Path) -> None:
    out = tmp_path / "out" / "b.json"
    read = OSError(errno.EACCES, "Permission denied", "/elsewhere/weights.safetensors")
    assert str(explain_os_error(read, out)) == "cannot use /elsewhere/weights.safetensors: permission denied"
    here = OSError(errno.EACCES, "Permission denied", str(out.parent / ".b.json.x.tmp"))
    assert str(explain_os_error(here, out)).startswith(f"cannot write {out}: permission denied")
    with pytest.raises(InputError, match="cannot use .*none: no such file"), atomic_path(out) as temporary:
        temporary.write_bytes((tmp_path / "none").read_bytes())
    assert not out.exists()
    read_only = str(explain_stray_error(OSError(errno.EROFS, "x", b"b.json")))
    assert read_only.startswith("cannot write b.json: the file system is read-only")
    assert str(explain_stray_error(OSError(errno.EIO, "Bad", "b.json"))) == "cannot use b.json: bad"
    assert str(explain_stray_error(OSError())) == "the system refuses: oserror"


def test_the_umask_is_followed_and_left_as_it_was() -> None:
    before = os.umask(0o027)
    try:
        assert ordinary_mode(0o666) == 0o640
        assert ordinary_mode(0o777) == 0o750
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_link_is_the_same_file_and_a_copy_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("text")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    link(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c").samefile(tmp_path / "a")
    assert (tmp_path / "c").read_text() == "text"
