"""What is measured of one point, on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears
from report_bundles import samples

from vitrim.exporter.runtime.bench.report import report
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
    row, stages = work.measured(base, narrow, work.answered(base, narrow, work.look(base, narrow, {})))
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
