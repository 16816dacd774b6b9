"""Commands that look into graphs: their status is what was found."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli


def verdicts(**errors: list[str]) -> dict[str, Any]:
    return {"targets": {name: {"errors": found, "warnings": []} for name, found in errors.items()}}


@pytest.mark.parametrize(
    ("words", "errors", "status"),
    [
        ([], {"one": ["no"], "two": []}, 0),  # some target takes it
        ([], {"one": ["no"], "two": ["no"]}, 1),
        (["--target", "one", "--target", "two"], {"one": ["no"], "two": []}, 1),
        (["--target", "two"], {"two": []}, 0),
    ],
)
def test_a_graph_that_named_targets_refuse_is_status_1(
    monkeypatch: pytest.MonkeyPatch, words: list[str], errors: dict[str, list[str]], status: int
) -> None:
    monkeypatch.setattr(api, "lint", lambda path, **options: verdicts(**errors))
    assert CliRunner().invoke(cli, ["lint", "m.onnx", *words, "--json"]).exit_code == status


@pytest.mark.parametrize(("verdict", "status"), [("built", 0), ("refused", 1)])
def test_the_builder_s_word_counts_for_its_target(monkeypatch: pytest.MonkeyPatch, verdict: str, status: int) -> None:
    asked = {"asked": {"target": "trt-rtx", "verdict": verdict}} | verdicts(**{"trt-rtx": ["no"]})
    monkeypatch.setattr(api, "lint", lambda path, **options: asked)
    assert CliRunner().invoke(cli, ["lint", "m.onnx", "--ask", "trt-rtx", "--json"]).exit_code == status


def test_an_inspection_with_errors_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for severity, status in (("error", 1), ("warning", 0)):
        found = {"findings": [{"severity": severity}]}
        monkeypatch.setattr(api, "inspect", lambda path, found=found, **options: found)
        assert CliRunner().invoke(cli, ["inspect", "m.onnx", "--json"]).exit_code == status
