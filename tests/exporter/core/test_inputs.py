"""Only regular files of a fitting size are read, and whatever else a path names is said in one line at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.inputs import (
    InputKind,
    is_file,
    is_folder,
    open_file,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    require_file,
)


def test_a_file_is_read_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("é")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", InputKind.JSON) == b"\xc3\xa9"
    assert read_text(str(tmp_path / "b"), InputKind.RECIPE) == "é"
    with open_file(tmp_path / "a", InputKind.GRAPH) as stream:
        assert stream.read(1) == b"\xc3"
    assert is_file(tmp_path / "b")


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
    cases = {
        tmp_path / "fifo": "is a FIFO; give the graph itself",
        tmp_path / "folder": "is a folder",
        tmp_path / "socket": "is a socket",
        Path("/dev/zero"): "is a device",
        tmp_path / "none": "no such file",
        tmp_path / "loop": "too many levels",
        tmp_path / ("x" * 300): "too long",
        tmp_path / "nul\0": "null",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError, match=f"cannot read .*{reason}"):
            require_file(path, InputKind.GRAPH)
        assert not is_file(path)


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "giant", "wb") as stream:
        stream.truncate(InputKind.JSON.largest + 1)
    with pytest.raises(InputError, match="it has 67108865 bytes, and a JSON file has at most 67108864"):
        read_bytes(tmp_path / "giant", InputKind.JSON)
    with pytest.raises(InputError, match="at most 1048576"):
        require_file(tmp_path / "giant", InputKind.RECIPE)
    require_file(tmp_path / "giant", InputKind.GRAPH)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="needs Linux")
def test_a_file_that_hides_its_size_is_read_up_to_the_limit() -> None:
    with pytest.raises(InputError):  # where it is forbidden, that is said; where not, it is too large
        read_bytes("/proc/self/pagemap", InputKind.RECIPE)


def test_json_says_the_place_and_who_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2]}')
    assert read_json(path, "budget", "vitrim calibrate") == {"a": [1, 2]}
    for text, reason in (
        ("[1,\n 2", "is not valid JSON at line 2, column 3; `vitrim calibrate` writes a budget"),
        ("[" * 100_000, "is not valid JSON"),
        ("9" * 5_000, "is not valid JSON; `vitrim calibrate` writes a budget"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_json(path, "budget", "vitrim calibrate")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not a text file"):
        read_json(path, "budget", "vitrim calibrate")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "a.json is not valid JSON (NaN is no number); copy it again"),
        ('{"a": [-Infinity]}', "a.json is not valid JSON (-Infinity is no number); copy it again"),
        ("[1e999]", "a.json holds a number that is too large; copy it again"),
        (f"[{2**63}]", "a.json holds a number that is too large; copy it again"),
        ('{"\\ud800": 1}', "a.json holds half a character; copy it again"),
        ('["\\udfff"]', "a.json holds half a character; copy it again"),
        ("[" * 101 + "]" * 101, "a.json holds lists that are nested more than 100 deep; copy it again"),
        ("[1,]", "a.json is not valid JSON at line 1, column 4; copy it again"),
        ("", "a.json is not valid JSON at line 1, column 1; copy it again"),
    ],
)
def test_json_that_nothing_could_go_on_with_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(text, "a.json", "copy it again")
    assert str(caught.value) == said


def test_json_at_the_bounds_is_read() -> None:
    text = f'[{2**63 - 1}, {-(2**63) + 1}, 1.7e308, "\\ud83d\\ude00", "é", null, true]'
    assert parse_json(text, "a", "b") == [2**63 - 1, -(2**63) + 1, 1.7e308, "\U0001f600", "é", None, True]
    assert parse_json("[" * 100 + "]" * 100, "a", "b")


def test_a_folder_is_told_from_a_file_and_from_nothing(tmp_path: Path) -> None:
    assert is_folder(tmp_path)
    for path in (tmp_path / "none", tmp_path / ("x" * 300), tmp_path / "nul\0", Path("/dev/null")):
        assert not is_folder(path)
