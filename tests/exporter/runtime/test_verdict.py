"""Requests are read one by one, and answered a line each."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitrim.exporter.runtime.verdict import Answer, Refusal, serve


def test_requests_are_answered_line_by_line_whatever_libraries_print(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(model: bytes, place: str) -> Answer:
        os.write(1, b"a library says something\n")
        return Answer("me", built=not place, refused=(Refusal("parser", model.decode(), "", "no"),) if place else ())

    requests = b"".join(
        json.dumps({"size": len(data), "place": place}).encode() + b"\n" + data
        for data, place in ((b"one", ""), (b"second", "there"))
    )
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(requests)))
    kept, target = os.dup(1), tmp_path / "out"
    with target.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        try:
            serve(answer)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    first, second = (Answer.from_json(json.loads(line), "answer") for line in target.read_text().splitlines())
    assert (first.built, first.refused) == (True, ())
    assert second.refused[0].node == "second"
