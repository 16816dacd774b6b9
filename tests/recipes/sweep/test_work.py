"""What is measured of one point, on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears
from report_bundles import samples

from vitrim.calibration.tokens.outcome import MEMORY
from vitrim.exporter.pruning.budget import read_budget
from vitrim.exporter.runtime.bench.report import report
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.run import open_run
from vitrim.recipes.pools.choose import ALONE, Crew
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.sweep import work as module
from vitrim.recipes.sweep.points import Point
from vitrim.recipes.sweep.result import Row
from vitrim.recipes.sweep.work import Within, Work, row_of


def begun(tmp_path: Path, look: int, **sections: Any) -> tuple[Work, Any]:
    base = recipe_from(small_recipe(**sections))
    return Work.begin(open_run(base, cache_of(tmp_path / "s", keeps=True), Ears()), look), base


def look(work: Work, base: Any, point: Point) -> Row:
    """A point's row after the first look."""
    ((_, found),) = work.looked(work.asks(base, [point]))
    return row_of(point, found)


def test_points_that_differ_in_precision_have_one_plan_and_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VITRIM_STAGES", raising=False)
    work, base = begun(tmp_path, 5)
    points = [Point("tome", 0.7, name) for name in ("fp32", "int8")]
    (ask,) = work.asks(base, points)
    assert (ask.points, ask.budget, ask.whole) == (tuple(points), None, False)
    ((same, found),) = work.looked([ask])
    assert same is ask
    rows = [row_of(point, found) for point in points]
    assert rows[0].look is rows[1].look is found.look
    assert rows[0].tokens[-1] < 17
    assert 0 < rows[0].floor_gmacs < rows[0].gmacs  # type: ignore[operator]
    (again,) = work.asks(base, points)
    assert again.budget == found.budget
    held = read_budget(work.open(ask.recipe).folders["calibrate"] / "budget.json")
    assert held == found.budget
    whole = work.answered(base, points[0], rows[0])
    assert whole.answers is not None
    assert (whole.answers.images, whole.look) == (12, rows[0].look)


def test_workers_that_are_asked_for_have_one_thread_and_answer_all_images(tmp_path: Path) -> None:
    base = recipe_from(small_recipe())
    run = open_run(base, cache_of(tmp_path / "s", keeps=True), Ears())
    alone, one, three = (Work.begin(run, 5, crew) for crew in (ALONE, Crew(1), Crew(3)))
    assert [work.task.threads for work in (alone, one, three)] == [None, 1, 1]
    assert three.task.memory == MEMORY // 3
    asked = [work.asks(base, [Point("tome", 0.7, "fp32")])[0].whole for work in (alone, one, three)]
    assert asked == [False, False, True]


def test_what_is_not_timed_here_is_not_traced(tmp_path: Path) -> None:
    work, base = begun(tmp_path, 5, export={"target": "trt-10"})
    assert not work.timed
    row = look(work, base, Point("tome", 0.7, "fp32"))
    assert work.measured(base, Point("tome", 0.7, "fp32"), row) == (row, [])


def test_times_of_another_machine_s_graph_are_none(tmp_path: Path) -> None:
    report(samples(), 1, {"runtime": "onnxruntime-cpu"}).write(tmp_path / "here.json")
    report(samples(), 1, {"runtime": "onnxruntime-cpu", "cpu_only": "no GPU"}).write(tmp_path / "cpu.json")
    here = module._speed(tmp_path / "here.json")
    assert here is not None
    assert here.speedup == pytest.approx(1.25, abs=0.01)
    assert here.floor == pytest.approx(10 / 7, abs=0.02)
    assert module._speed(tmp_path / "cpu.json") is None
    assert module._speed(tmp_path / "none.json") is None


@pytest.mark.exhaustive
@pytest.mark.slow
def test_another_precision_has_its_own_answers_and_is_timed_beside_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, base = begun(tmp_path, 5, precision={"images": 4})
    wide, narrow = (Point("zero_tprune", 0.7, name) for name in ("fp32", "fp16"))
    row, stages = work.measured(base, narrow, work.answered(base, narrow, look(work, base, narrow)))
    assert row.refused is None
    assert row.answers is not None
    assert row.answers.precision is not None  # measured on the graph
    assert row.speed is not None
    assert {name.partition("-")[0] for name in stages} >= {"precision", "fidelity", "bench"}
    both = work.together(base, [wide, narrow])
    assert [speed.rivals for speed in both.values()] == [2, 2]
    assert both[wide].dense == both[narrow].dense
    assert all(speed.interval[0] <= speed.speedup <= speed.interval[1] for speed in both.values())
    monkeypatch.setattr(module, "TOGETHER", 1)  # too little for two
    apart = work.together(base, [wide, narrow])
    assert [speed.rivals for speed in apart.values()] == [1, 1]


def test_a_note_is_heard_once() -> None:
    ears = Ears()
    within = Within(ears)
    for text in ("one", "one", "two"):
        within.note(text)
    assert ears.notes == ["one", "two"]
