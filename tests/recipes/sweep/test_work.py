"""What is measured of one point, on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears

from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.load import recipe_from
from vitrim.recipes.pipeline.run import open_run
from vitrim.recipes.sweep import work as module
from vitrim.recipes.sweep.points import Point
from vitrim.recipes.sweep.work import Within, Work


def begun(tmp_path: Path, look: int, **sections: Any) -> tuple[Work, Any]:
    base = recipe_from(small_recipe(**sections))
    return Work.begin(open_run(base, cache_of(tmp_path / "s", keeps=True), Ears()), look), base


def test_a_look_is_at_images_spread_over_all_and_a_plan_is_judged_once(tmp_path: Path) -> None:
    work, base = begun(tmp_path, 5)
    known: dict[Any, Any] = {}
    row = work.look(base, Point("tome", 0.7, "fp32"), known)
    assert row.look is not None
    assert row.look.images == 5
    assert row.tokens[-1] < 17
    assert 0 < row.floor_gmacs < row.gmacs  # type: ignore[operator]
    narrow = work.look(base, Point("tome", 0.7, "int8"), known)
    assert len(known) == 1
    assert narrow.look is row.look
    whole = work.answered(base, Point("tome", 0.7, "fp32"), row)
    assert whole.answers is not None
    assert (whole.answers.images, whole.answers.on_calibration_images) == (12, False)
    assert whole.answers.accuracy_dense is not None


def test_few_images_are_all_looked_at(tmp_path: Path) -> None:
    work, _ = begun(tmp_path, 64)
    assert work.few is work.whole


def test_what_is_not_timed_here_is_not_traced(tmp_path: Path) -> None:
    work, base = begun(tmp_path, 5, export={"target": "trt-10"})
    assert not work.timed
    row = work.look(base, Point("tome", 0.7, "fp32"), {})
    assert work.measured(base, Point("tome", 0.7, "fp32"), row) == (row, [])


@pytest.mark.slow
def test_another_precision_has_its_own_answers(tmp_path: Path) -> None:
    work, base = begun(tmp_path, 5)
    point = Point("zero_tprune", 0.7, "int8")
    row, stages = work.measured(base, point, work.answered(base, point, work.look(base, point, {})))
    assert row.refused is None
    assert row.answers is not None
    assert row.answers.precision is not None  # measured on the graph
    assert row.speed is not None
    assert {name.partition("-")[0] for name in stages} >= {"precision", "fidelity", "bench"}


@pytest.mark.slow
def test_points_are_timed_in_the_same_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, base = begun(tmp_path, 5)
    points = [Point("zero_tprune", 0.7, "fp32"), Point("zero_tprune", 0.7, "int8")]
    both = work.together(base, points)
    assert [speed.rivals for speed in both.values()] == [2, 2]
    assert both[points[0]].dense == both[points[1]].dense
    assert all(speed.interval[0] <= speed.speedup <= speed.interval[1] for speed in both.values())
    monkeypatch.setattr(module, "TOGETHER", 1)  # too little for two
    apart = work.together(base, points)
    assert [speed.rivals for speed in apart.values()] == [1, 1]


def test_a_note_is_heard_once() -> None:
    ears = Ears()
    within = Within(ears)
    for text in ("one", "one", "two"):
        within.note(text)
    assert ears.notes == ["one", "two"]
