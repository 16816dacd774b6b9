"""What a person sees while a command runs: bars on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import re
import sys
import threading
import time

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from vitrim.recipes.listener import Silence
from vitrim.terminal.progress import Bars, Plain, open_listener


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_stage_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain.stage("trace")
    plain.progress(1, 2)
    plain.stage("forms", cached=True)
    plain.note("look")
    plain.finish()
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert re.fullmatch(r"\[ +\d+\.\d s\] trace", first)
    assert re.fullmatch(r"\[ +\d+\.\d s\] forms \(unchanged, skipped\)", second)
    assert third == "note: look"


def test_a_long_stage_says_that_it_is_still_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain(beat=0.05)
    plain.stage("reference")
    plain.progress(512, 5000)
    time.sleep(0.25)
    plain.stage("forms", cached=True)  # says nothing more
    time.sleep(0.15)
    plain.stage("trace")  # never says how far it is
    time.sleep(0.15)
    plain.finish()
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "reference"
    skipped, trace = lines.index("forms (unchanged, skipped)"), lines.index("trace")
    assert set(lines[1:skipped]) == {"reference: 512 of 5000"}
    assert 1 <= skipped - 1 <= 5
    assert trace == skipped + 1
    assert set(lines[trace + 1 :]) == {"trace: still at work"}
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_the_clock_stops_with_the_command_even_where_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    def fail() -> None:
        with open_listener(silent=False) as listener:
            assert isinstance(listener, Plain)
            assert listener.beat == 30.0
            listener.stage("trace")
            assert any(thread.name == "progress" for thread in threading.enumerate())
            raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        fail()
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_names_and_notes_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain()
    plain.stage("tr\x1b[31mace", cached=True)
    plain.note("look\x1b]0;x\x07\nhere")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(r"tr\x1b[31mace (unchanged, skipped)")
    assert second == r"note: look\x1b]0;x\x07 here"
    screen = io.StringIO()
    bars = Bars(Progress(console=Console(file=screen, width=80, force_terminal=True), auto_refresh=False))
    bars.stage("[red]a[/red]\x1b[31m")
    bars.note("[link=http://x]b[/link]\x1b[2J :smile:")
    shown = screen.getvalue()
    assert Text.from_markup(bars.bars.tasks[0].description).plain == r"[red]a[/red]\x1b[31m"
    assert "[link=http://x]b[/link]\\x1b[2J :smile:" in shown
    assert "\x1b[2J" not in shown


def test_bars_move_finish_and_say_what_was_skipped() -> None:
    screen = io.StringIO()
    bars = Bars(Progress(console=Console(file=screen, width=80), auto_refresh=False))
    bars.progress(1, 2)  # before any stage: nothing to move
    bars.finish()
    assert bars.bars.tasks == []
    bars.stage("trace")
    bars.progress(1, 4)
    (trace,) = bars.bars.tasks
    assert (trace.completed, trace.total, trace.finished) == (1, 4, False)
    bars.stage("forms", cached=True)
    assert (trace.completed, trace.finished) == (4, True)
    forms = bars.bars.tasks[1]
    assert (forms.description, forms.completed, forms.total) == ("forms [dim](unchanged)[/dim]", 1, 1)
    bars.stage("bench")  # that never says how far it is
    bars.finish()
    assert bars.bars.tasks[2].finished
    assert all(task.stop_time is not None for task in bars.bars.tasks)
    bars.note("look")
    assert "note: look" in screen.getvalue()


def test_who_listens_follows_from_where_standard_error_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_listener(silent=True) as listener:
        assert isinstance(listener, Silence)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with open_listener(silent=False) as listener:
        assert isinstance(listener, Plain)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with open_listener(silent=False) as listener:
        assert isinstance(listener, Bars)
        listener.stage("trace")
        listener.progress(1, 3)
    assert listener.bars.tasks[0].finished
    assert "trace" in sys.stderr.getvalue()
