"""What a person sees while a command runs: bars on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from vitrim.cli_progress import Bars, Plain, open_listener
from vitrim.recipes.pipeline.listener import Silence


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
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert re.fullmatch(r"\[ +\d+\.\d s\] trace", first)
    assert re.fullmatch(r"\[ +\d+\.\d s\] forms \(unchanged, skipped\)", second)
    assert third == "note: look"


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
