"""Whoever listens hears the same, and a tracker hears how long stages took and what the bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_bundles
from listeners import Ears

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.listener import Silence, tell_published
from vitrim.recipes.tracking import tracker as module
from vitrim.recipes.tracking.facts import Facts
from vitrim.recipes.tracking.tracker import Tracked, tracked


class Kept:
    """A tracker in memory."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.numbers: dict[str, float] = {}
        self.bundles: list[Facts] = []
        self.ended: list[BaseException | None] = []

    def metrics(self, values: dict[str, float]) -> None:
        if self.fails:
            raise ConnectionError("no\nroute")
        self.numbers |= values

    def facts(self, facts: Facts) -> None:
        self.bundles.append(facts)

    def end(self, error: BaseException | None) -> None:
        self.ended.append(error)


def test_stages_are_timed_but_those_from_a_cache(tmp_path: Path) -> None:
    times = iter([10.0, 12.5, 20.0, 21.0])
    kept, ears = Kept(), Ears()
    listener = Tracked(ears, kept, lambda: next(times))
    listener.stage("trace")
    listener.stage("the ONNX file")
    listener.stage("passes", cached=True)
    listener.note("heard")
    tell_published(listener, report_bundles.make(tmp_path / "out"))
    assert kept.numbers == {"seconds.trace": 2.5, "seconds.the_ONNX_file": 1.0}
    assert [facts.name for facts in kept.bundles] == ["out"]
    assert ears.notes == ["heard"]


def test_other_listeners_need_not_follow_bundles(tmp_path: Path) -> None:
    tell_published(Silence(), tmp_path)


def test_a_tracker_out_of_reach_costs_no_export(tmp_path: Path) -> None:
    ears = Ears()
    listener = Tracked(ears, Kept(fails=True))
    listener.stage("trace")
    listener.stage("passes")
    assert ears.notes == ["the tracker did not keep everything: no route"]


def test_a_run_ends_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Kept] = []

    def make() -> Any:
        made.append(Kept())
        return made[-1]

    monkeypatch.setitem(module.TRACKERS, "mlflow", make)
    with tracked("mlflow", Silence()):
        pass
    with pytest.raises(KeyboardInterrupt), tracked("mlflow", Silence()):
        raise KeyboardInterrupt
    assert made[0].ended == [None]
    assert [type(error) for error in made[1].ended] == [KeyboardInterrupt]


def test_without_a_tracker_the_listener_is_the_same() -> None:
    ears = Ears()
    with tracked(None, ears) as listener:
        assert listener is ears


def test_an_unknown_tracker_is_refused_with_those_that_there_are() -> None:
    with (
        pytest.raises(InputError, match=r"no tracker 'mflow'; did you mean mlflow\? \(there are mlflow, wandb\)"),
        tracked("mflow", Silence()),
    ):
        pass
