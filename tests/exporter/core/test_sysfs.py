"""Small files of the kernel: a word, a number, or nothing to be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrim.exporter.core.sysfs import read_number, read_text


@pytest.mark.parametrize(
    ("content", "text", "number"),
    [
        (b"performance\n", "performance", None),
        (b" 918000000 \n", "918000000", 918e6),
        (b"-256000\n", "-256000", -256000.0),
        (b"61.5", "61.5", 61.5),
        (b"", "", None),
        (b"\n", "", None),
        (b"12 34\n", "12 34", None),
        (b"0\n", "0", 0.0),
        (b"ok\xff\n", "ok\ufffd", None),
    ],
)
def test_a_file_is_a_word_and_perhaps_a_number(tmp_path: Path, content: bytes, text: str, number: float | None) -> None:
    path = tmp_path / "temp"
    path.write_bytes(content)
    assert read_text(path) == text
    assert read_number(path) == number


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    for path in (tmp_path / "none", tmp_path, tmp_path / "file" / "below"):
        assert read_text(path) is None
        assert read_number(path) is None
