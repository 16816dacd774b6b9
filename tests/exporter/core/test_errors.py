"""Errors that end a command with one line, and with which exit status."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from vitrim.exporter.core import errors

ROOT = Path(__file__).resolve().parents[3]
STATUS = {
    "VitrimError": 3,
    "InputError": 3,
    "UnsupportedError": 3,
    "EnvironmentLackError": 3,
    "ParityError": 1,
    "RequirementError": 1,
    "NotFasterError": 2,
}


@pytest.mark.parametrize("name", STATUS)
def test_every_error_has_its_exit_status(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.VitrimError)
    assert kind("why").exit_code == STATUS[name]
    assert str(kind("why")) == "why"


def test_the_list_is_whole() -> None:
    tree = ast.parse(Path(errors.__file__).read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)] == list(STATUS)


def test_the_guide_s_table_has_every_status() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text("utf-8")
    table = guide.partition("| exit status | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\d) \| ", table, re.M) == [str(status) for status in sorted({0, *STATUS.values()})]


def test_what_was_made_comes_with_a_refusal_to_be_faster() -> None:
    one, other = errors.NotFasterError("slower"), errors.NotFasterError("slower")
    one.result = {"ratio": 1.1}
    assert (one.result, other.result) == ({"ratio": 1.1}, None)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain größer 日本", "plain größer 日本"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://x\x07link", r"\x1b]8;;http://x\x07link"),
        ("a\nb\tc\r\nd", "a b c d"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u200bc\ufeff", r"a\u202eb\u200bc\ufeff"),
        ("caf\udce9", r"caf\udce9"),
        ("\x00\x7f", r"\x00\x7f"),
        ("a\u2028b\u3000c", "a b c"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelled_out(text: str, seen: str) -> None:
    assert errors.visible(text) == seen
    assert errors.visible(text).isprintable()


def test_echoes_are_cut() -> None:
    assert errors.excerpt("x" * 80) == "x" * 80
    assert errors.excerpt("x" * 81) == "x" * 77 + "..."
    assert errors.excerpt("\x1b" * 10**6) == r"\x1b" * 19 + "\\..."
    assert errors.excerpt("abcdef", 5) == "ab..."
    assert errors.excerpt(["a", 1]) == "['a', 1]"
    assert errors.excerpt(10**9999) == "a large int"


def test_a_close_name_is_offered_and_a_far_one_is_not() -> None:
    assert errors.did_you_mean("frugl", ["tome", "frugal"]) == "; did you mean frugal?"
    assert errors.did_you_mean("frugl", {"tome": 1}) == ""
    assert errors.did_you_mean("frugal" * 10**6, ["frugal"]) == ""
