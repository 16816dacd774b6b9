"""The journal: whole lines count once, a torn one not at all, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.recipes.evaluation.journal import FORMAT, Journal
from vitrim.recipes.evaluation.shards import Answer

HEAD = {"version": "1", "bundle": "b", "images": "i"}
ONE = [Answer(3, 3, True, 0.1), Answer(2, 4, False, 1 / 3)]
TWO = [Answer(0, 0, True, 5e-324)]
WHOLE = {0: ONE[0], 1: ONE[1], 2: TWO[0]}


def written(path: Path) -> bytes:
    with Journal(path, HEAD) as journal:
        journal.add(0, ONE)
        journal.add(2, TWO)
    return path.read_bytes()


def test_what_was_added_is_there_again_to_the_last_bit(tmp_path: Path) -> None:
    text = written(tmp_path / "j")
    assert len(text.splitlines()) == 3
    with Journal(tmp_path / "j", HEAD) as journal:
        assert journal.answers == WHOLE
        journal.remove()
    assert not (tmp_path / "j").exists()


@given(cut=st.integers(0, 400))
def test_wherever_it_was_torn_whole_lines_stay_and_the_next_ones_follow(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "j"
    text = written(path)[:cut]
    path.write_bytes(text)
    lines = max(0, text.count(b"\n") - 1)
    expected = [{}, {0: ONE[0], 1: ONE[1]}, WHOLE][lines]
    with Journal(path, HEAD) as journal:
        assert journal.answers == expected
        journal.add(0, ONE)
        journal.add(2, TWO)
    with Journal(path, HEAD) as journal:
        assert journal.answers == WHOLE


def test_a_doubled_shard_counts_once_and_the_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "j"
    text = written(path)
    path.write_bytes(text + text.splitlines(keepends=True)[1])
    with Journal(path, HEAD) as journal:
        assert journal.answers == WHOLE
        journal.add(0, [Answer(0, 0, True, 9.0)])
        assert journal.answers == WHOLE


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("bundle", "another bundle"),
        ("images", "other images"),
        ("version", "another version of vitrim"),
        ("dense by", "another dense by"),
    ],
)
def test_a_journal_of_something_else_is_refused_and_stays(tmp_path: Path, key: str, said: str) -> None:
    text = written(tmp_path / "j")
    with pytest.raises(InputError, match=f"j is of {said}; name another output, or remove the file to begin anew$"):
        Journal(tmp_path / "j", {**HEAD, key: "x"})
    assert (tmp_path / "j").read_bytes() == text


@pytest.mark.parametrize("text", [b"my notes\n", b"my notes", b"[1]\n", b"{}\n", b'{"format": "other"}\n'])
def test_a_file_that_is_no_journal_is_refused_and_stays(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "j").write_bytes(text)
    with pytest.raises(InputError, match="j is no journal of an evaluation"):
        Journal(tmp_path / "j", HEAD)
    assert (tmp_path / "j").read_bytes() == text


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "{}", '{"start": -1, "answers": []}', '{"start": true, "answers": []}',
        '{"start": 0, "answers": [[1, 2, 1]]}', '{"start": 0, "answers": [[1, 2, 2, 0.5]]}',
        '{"start": 0, "answers": [[1, 2, 1, NaN]]}', '{"start": 0, "answers": [[-1, 2, 1, 0.5]]}',
        '{"start": 0, "answers": [[1, 2, true, 0.5]]}', '{"start": 0, "answers": 3}', "[" * 5000,
    ],
)  # fmt: skip
def test_a_whole_line_that_is_damaged_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "j").write_text(json.dumps({"format": FORMAT, **HEAD}) + "\n" + line + "\n")
    with pytest.raises(InputError, match="^line 2 of .*j is damaged; remove the file to begin anew$"):
        Journal(tmp_path / "j", HEAD)


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEAD), pytest.raises(InputError, match="^another run is writing .*j; wait for it"):
        Journal(tmp_path / "j", HEAD)
    with Journal(tmp_path / "j", HEAD):
        pass


def test_a_link_is_not_followed_and_a_full_disk_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "other").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(EnvironmentLackError, match="^cannot write .*link"):
        Journal(tmp_path / "link", HEAD)
    with Journal(tmp_path / "j", HEAD) as journal:
        monkeypatch.setattr("os.write", lambda file, line: len(line) - 1)
        with pytest.raises(EnvironmentLackError, match="the disk is full; free some space and go on$"):
            journal.add(0, ONE)
    assert (tmp_path / "other").read_text() == "x"
