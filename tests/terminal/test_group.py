"""A command prints its result and is then judged by it, as JSON too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import NotFasterError
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.parity import Parity, Rung


def slower() -> Bench:
    """A benchmark whose pruned graph is slower than the dense one."""
    dense = np.linspace(4.9, 5.1, 60)
    return report({"dense": dense, "pruned": 2 * dense}, 1, {"cpu": "x", "runtime": "onnxruntime-cpu"})


def test_a_result_is_printed_and_then_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is on the screen, or the JSON whole, before the status says so."""
    failed = Rung("engine", 4, passed=False, first_offender="logits", reason="off", smallest_atol=0.1)
    monkeypatch.setattr(api, "check", lambda bundle, **options: Parity(1e-4, 1e-5, (failed,)))
    monkeypatch.setattr(api, "bench", lambda bundle, **options: slower())
    for words, status, kind, key in (
        (["check", "out"], 1, "Parity: FAILED (atol 0.0001)", "passed"),
        (["bench", "out"], 2, "Speed: slower than dense: 0.50 times its speed", "verdict"),
    ):
        page = CliRunner().invoke(cli, words)
        assert kind in page.stdout
        assert getattr(page.exception, "exit_code", None) == status
        data = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
        assert data[key] in (False, "slower than dense: 0.50 times its speed")
        assert CliRunner().invoke(cli, [*words, "--quiet"]).stdout == ""
    assert CliRunner().invoke(cli, ["bench", "out", "--allow-slower"]).exception is None


def test_an_export_that_is_not_faster_is_printed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        def to_json(self) -> dict[str, Any]:
            return {"folder": "out"}

    def export(*words: Any, **options: Any) -> None:
        error = NotFasterError("out is published, but the pruned graph is slower")
        error.result = Done()
        raise error

    monkeypatch.setattr(api, "export", export)
    page = CliRunner().invoke(cli, ["export", "quickstart", "-o", "out", "--json"])
    assert json.loads(page.stdout) == {"folder": "out"}
    assert isinstance(page.exception, NotFasterError)


def test_a_result_that_is_printed_is_the_only_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """--json: what failed after its result was printed is said on standard error alone."""
    monkeypatch.setattr(api, "bench", lambda bundle, **options: slower())
    told: dict[str, bool] = {}
    CliRunner().invoke(cli, ["bench", "out", "--json"], obj=told)
    assert told == {"result": True}
