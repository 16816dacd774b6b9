"""Lines of finished work: whole ones stay, a torn one goes, and what is of something else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pools.lines import Kind, Lines

KIND = Kind("vitrim-test/1", "journal of a test", {"model": "another model"}, "take another folder")
ROWS = [{"a": 1}, {"b": [0.1, None]}]


def written(path: Path) -> bytes:
    with Lines(path, KIND, {"model": "m"}) as lines:
        assert lines.found == []
        for row in ROWS:
            lines.append(row)
    return path.read_bytes()


@given(cut=st.integers(0, 90))
def test_wherever_it_was_torn_whole_lines_stay(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "j"
    text = written(path)[:cut]
    path.write_bytes(text)
    whole = ROWS[: max(0, text.count(b"\n") - 1)]
    with Lines(path, KIND, {"model": "m"}) as lines:
        assert lines.found == whole
        lines.append({"c": 2})
    with Lines(path, KIND, {"model": "m"}) as lines:
        assert lines.found == [*whole, {"c": 2}]


def test_what_is_of_something_else_says_so_and_stays(tmp_path: Path) -> None:
    text = written(tmp_path / "j")
    with pytest.raises(InputError, match="j is of another model; take another folder$"):
        Lines(tmp_path / "j", KIND, {"model": "x"})
    with pytest.raises(InputError, match="j is no journal of another, or of another version"):
        Lines(tmp_path / "j", Kind("vitrim-other/1", "journal of another"), {})
    assert (tmp_path / "j").read_bytes() == text
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match="notes is no journal of a test; name another output"):
        Lines(tmp_path / "notes", KIND, {})


def test_a_line_that_holds_no_object_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(written(tmp_path / "j") + b"[1]\n")
    with Lines(tmp_path / "j", KIND, {"model": "m"}) as lines:
        assert lines.found == [*ROWS, {}]
        assert str(lines.damaged(2)) == f"line 4 of {tmp_path / 'j'} is damaged; remove the file to begin anew"
