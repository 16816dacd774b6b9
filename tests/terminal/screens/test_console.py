"""Names that come from files, and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from vitrim.terminal.screens.console import console_for, print_json, print_lines
from vitrim.terminal.screens.graph import print_inspection
from vitrim.terminal.screens.lists import print_freed, print_recipes


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_files_do_nothing_to_a_terminal(terminal: bool) -> None:
    """No escape sequences, no markup, no pictures for words, wherever a name stands."""
    evil = "[red]a[/red][link=http://x]\x1b[2Jb\x1b]0;t\x07 :smile: \u202e"
    seen = r"[red]a[/red][link=http://x]\x1b[2Jb\x1b]0;t\x07 :smile: \u202e"
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    console = console_for(stream)
    console.width = 300
    finding = {"severity": "error", "what": evil, "remedy": evil, "op": evil, "node": evil}
    inspection = {"opset": 17, "before": {evil: 1}, "operators": {evil: 2}, "passes": [], "findings": [finding]}
    print_inspection(inspection | {"target": evil}, console)
    print_recipes({evil: evil}, console)
    print_lines([evil], console)
    print_freed({evil: 1}, console)
    page = stream.getvalue()
    assert page.count(seen) >= 8
    assert not set(page) & {"\x07", "\u202e", "\U0001f604"}
    assert "\x1b[2J" not in page
    assert "\x1b]" not in page
    assert terminal or "\x1b" not in page


def test_json_is_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"folder": Path("out"), "a": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"folder": "out", "a": [1, None]}
