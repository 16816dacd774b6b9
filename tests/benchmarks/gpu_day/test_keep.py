"""What is done is kept, found again only while it still holds, and used to say how long more will take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_day.keep import SLACK, Keep, Outcome
from gpu_day.plan import GUESSES, Step
from gpu_day.results import Graphs

EXPORT = Step("export", "m", 1, "trt-rtx", "evit")
BUILD = EXPORT.but("build")
MADE = Graphs({"pruned": "a"}, 2.9, 1.0).to_json()


def test_what_was_kept_is_found_by_another_process(tmp_path: Path) -> None:
    outcome = Outcome(EXPORT, "key", 3.5, MADE)
    Keep(tmp_path / "steps").put(outcome)
    assert Keep(tmp_path / "steps").of(EXPORT) == outcome
    assert Keep(tmp_path / "steps").found(EXPORT) == MADE
    assert Keep(tmp_path / "steps").of(BUILD) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', json.dumps({"step": {}, "key": "k", "seconds": 1})])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    keep = Keep(tmp_path)
    keep.path(EXPORT).write_text(text)
    assert keep.of(EXPORT) is None


def test_a_result_of_another_version_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    Outcome(EXPORT, "key", 1.0, {"sha256": {"pruned": "a"}}).write(Keep(tmp_path).path(EXPORT))
    assert Keep(tmp_path).of(EXPORT) is None


def test_an_outcome_is_a_result_or_a_reason() -> None:
    with pytest.raises(ValueError, match="neither"):
        Outcome(EXPORT, "key", 1.0)
    with pytest.raises(ValueError, match="both"):
        Outcome(EXPORT, "key", 1.0, {}, "why")


def test_a_key_changes_with_the_step_its_needs_and_the_machine(tmp_path: Path) -> None:
    keep = Keep(tmp_path)
    keep.put(Outcome(EXPORT, "key", 1.0, MADE))
    keys = [keep.key(BUILD, {"gpu": "A"}), keep.key(BUILD, {"gpu": "B"}), keep.key(replace(BUILD, ratio=0.5), {})]
    keep.put(Outcome(EXPORT, "key", 1.0, {"sha256": {"pruned": "b"}}))
    keys.append(keep.key(BUILD, {"gpu": "A"}))
    assert len(set(keys)) == 4
    keep.put(Outcome(EXPORT, "another", 9.0, MADE))
    assert keep.key(BUILD, {"gpu": "A"}) == keys[0]


def test_estimates_come_from_what_is_most_alike(tmp_path: Path) -> None:
    keep = Keep(tmp_path)
    timing = Step("time", "m", 1, "trt-rtx", "evit", variant="plain")
    assert keep.estimate(timing) == GUESSES["time"]
    keep.put(Outcome(replace(timing, model="other", method="a"), "k", 40.0, {}))
    assert keep.estimate(timing) == pytest.approx(SLACK * 40)
    for method, seconds in (("b", 8.0), ("c", 10.0), ("d", 30.0)):
        keep.put(Outcome(replace(timing, batch=64, method=method), "k", seconds, {}))
    assert keep.estimate(timing) == pytest.approx(SLACK * 10)
    keep.put(Outcome(replace(timing, method="e"), "k", 4.0, {}))
    keep.put(Outcome(replace(timing, method="f"), "k", 500.0, reason="it hung"))  # says nothing of the others
    keep.put(Outcome(replace(timing, method="g", variant="cuda_graph"), "k", 90.0, {}))
    assert keep.estimate(timing) == pytest.approx(SLACK * 4)
