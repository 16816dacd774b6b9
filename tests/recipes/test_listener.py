"""Who hears a pipeline: every listener has the same ears, and silence says nothing."""

from __future__ import annotations

import inspect

import pytest

from vitrim.recipes.listener import Listener, Silence
from vitrim.terminal.progress import Bars, Plain

EARS = ("stage", "progress", "note")


def test_silence_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silence: Listener = Silence()
    silence.stage("trace", cached=True)
    silence.progress(1, 2)
    silence.note("a note")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [Silence, Plain, Bars])
def test_every_listener_hears_what_the_protocol_says(kind: type) -> None:
    for name in EARS:
        said, heard = (inspect.signature(getattr(owner, name)) for owner in (Listener, kind))
        assert heard.parameters == said.parameters, name
    assert {name for name in vars(Listener) if not name.startswith("_")} == set(EARS)
