"""Where a study is kept: what is torn is cut off, what is somebody else's stays, and no password is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vitrim.calibration.tokens.storage import cut_torn, is_url, open_storage
from vitrim.exporter.core.errors import EnvironmentLackError, InputError

ENTRY = b'{"op_code":0,"worker_id":"a","study_name":"b","directions":[1]}\n'


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[search\]'"):
        open_storage(None)


@pytest.mark.parametrize(
    ("text", "left"),
    [(b"", b""), (ENTRY, ENTRY), (ENTRY * 2 + b'{"op_code":4,"wor', ENTRY * 2), (ENTRY[:20], b"")],
)
def test_a_torn_line_is_cut_off(text: bytes, left: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study"
    path.write_bytes(text)
    cut_torn(path)
    assert path.read_bytes() == left


@pytest.mark.parametrize("text", [b"notes", b"notes\n", b'{"a": 1}\ntorn', b"[1]\n" + ENTRY])
def test_somebody_else_s_file_stays(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(text)
    with pytest.raises(InputError, match="is no journal of a search; name another"):
        cut_torn(path)
    assert path.read_bytes() == text


def test_what_is_a_url() -> None:
    assert is_url("postgresql://me:secret@host/name")
    assert not is_url("/shared/study.journal")


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna", reason="optuna is not installed: pip install 'vitrim[search]'")


def test_a_database_that_does_not_open_tells_no_password(optuna: Any) -> None:
    with pytest.raises(EnvironmentLackError, match="the database does not open") as caught:
        open_storage("nosuchdatabase://me:secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_journal_is_made_mended_and_held_to_be_one(optuna: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "study"
    optuna.create_study(storage=open_storage(str(path)), study_name="a")
    with path.open("ab") as file:
        file.write(b'{"op_code":0,"wor')
    optuna.create_study(storage=open_storage(str(path)), study_name="b")
    assert sorted(optuna.get_all_study_names(open_storage(str(path)))) == ["a", "b"]
    path.write_bytes(ENTRY + b"{}\n" + ENTRY)
    with pytest.raises(InputError, match="is damaged"):
        open_storage(str(path))
    assert sorted(one.name for one in path.parent.iterdir()) == ["study"]
