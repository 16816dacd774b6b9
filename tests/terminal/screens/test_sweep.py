"""A sweep on the command line: its lists, and what is printed of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sweeps import ROWS, sweep

from vitrim import api
from vitrim.cli import cli
from vitrim.terminal.screens.console import console_for
from vitrim.terminal.screens.sweep import print_sweep


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def run(source: str, images: Any = None, **given: Any) -> Any:
        seen.update(given, source=source)
        return sweep()

    monkeypatch.setattr(api, "sweep", run)
    return seen


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, ["sweep", *words], catch_exceptions=False)


def test_lists_come_with_commas(asked: dict[str, Any]) -> None:
    done = run("my.yaml", "-o", "s/", "--methods", "tome, ppt", "--ratios", "0.5,.7", "--precisions", "fp32")
    assert done.exit_code == 0
    assert (asked["methods"], asked["ratios"], asked["precisions"]) == (("tome", "ppt"), (0.5, 0.7), ("fp32",))
    assert (asked["agreements"], asked["out"], asked["source"]) == ((0.99, 0.98, 0.95), Path("s"), "my.yaml")


def test_the_front_and_the_best_are_printed(asked: dict[str, Any]) -> None:
    shown = run("my.yaml", "-o", "s/").stdout
    for words in ("frugal at 0.7 in fp32", "1.30", "98.8 %", "no point does", "with its interval"):
        assert words in shown
    assert "1 points were stopped, dominated by others; 1 cannot be had." in shown


def test_what_a_reader_should_know_is_said() -> None:
    text = io.StringIO()
    slow = replace(ROWS[0], speed=replace(ROWS[0].speed, warning="2 cores were busy"))  # type: ignore[type-var]
    told = sweep((slow, *ROWS[1:]), untimed="trt-10 does not run here", on_calibration_images=True, resumed=3)
    print_sweep(told, console_for(text))
    for words in (
        "trt-10 does not run here",
        "calibration images themselves",
        "3 points were finished before",
        "1 points were timed",
    ):
        assert words in text.getvalue()


def test_it_stands_for_a_call() -> None:
    shown = run("my.yaml", "-o", "s/", "--methods", "tome", "--set", "export.batch=8", "--print-python").stdout
    assert shown == (
        "from vitrim import api\n\napi.sweep('my.yaml', out='s', methods=['tome'], settings={'export.batch': 8})\n"
    )
