"""A sweep of a small model: what is stopped, kept and gone on with. Its graphs are timed by a formula, but once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.sweep.points import Point
from vitrim.recipes.sweep.result import Row, Speed, Sweep
from vitrim.recipes.sweep.run import Clock
from vitrim.recipes.sweep.work import Work

GRID: dict[str, Any] = {"methods": ["random", "tome"], "ratios": (0.5, 0.6, 0.7)}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the points that were timed: twice as fast at half of the work."""
    seen: list[str] = []

    def measured(self: Work, base: Any, point: Point, row: Row) -> tuple[Row, list[str]]:
        seen.append(str(point))
        speed = 0.97 / point.ratio
        return replace(row, speed=Speed(speed, (speed, speed), 1 / speed, 1.0, 1.0)), []

    def together(self: Work, base: Any, points: list[Point]) -> dict[Point, Speed]:
        return {one: Speed(0.9 / one.ratio, (0.9 / one.ratio,) * 2, 1.0, 1.0, rivals=len(points)) for one in points}

    monkeypatch.setattr(Work, "measured", measured)
    monkeypatch.setattr(Work, "together", together)
    return seen


def run(out: Path | None, **given: Any) -> Sweep:
    return api.sweep(small_recipe(), out=out, **{**GRID, "look": 8, **given})


def test_every_point_is_told_and_only_promising_ones_are_timed(tmp_path: Path, timed: list[str]) -> None:
    found = run(tmp_path / "s")
    assert [row.name for row in found.points] == [
        f"{method} at {ratio} in fp32" for method in ("tome", "random") for ratio in (0.5, 0.6, 0.7)
    ]
    assert all(row.look is not None and row.look.images == 8 for row in found.points)
    assert sorted(timed) == sorted(row.name for row in found.whole)
    assert all(row.answers is not None and row.answers.images == 12 for row in found.whole)
    assert all(row.stopped for row in found.points if row not in found.whole)
    assert found.on_front
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "pareto.svg", *(["recipes"] if (tmp_path / "s" / "recipes").exists() else []), "sweep.csv", "sweep.journal",
        "sweep.json",
    ]  # fmt: skip


def test_a_run_that_was_killed_goes_on_with_the_point_that_it_was_at(
    tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(None)
    first, fake, looks, answered = list(timed), Work.measured, list[Any](), Work.answered
    timed.clear()

    def killed(self: Work, base: Any, point: Point, row: Row) -> tuple[Row, list[str]]:
        if len(timed) == 1:
            raise KeyboardInterrupt
        return fake(self, base, point, row)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "measured", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "s")
    looked = Work.looked
    monkeypatch.setattr(Work, "looked", lambda work, asks: looks.extend(asks) or looked(work, asks))
    monkeypatch.setattr(Work, "answered", lambda *given: looks.append(given) or answered(*given))
    ears = Ears()
    again = run(tmp_path / "s", listener=ears)
    assert (timed, again.resumed) == (first, 1)
    assert len(looks) == len(first) - 2  # of the point that it was at, the answers are there; it was not timed
    assert f"goes on after 1 points that {tmp_path / 's' / 'sweep.journal'} has" in ears.notes
    assert replace(again, resumed=0, seconds=0, chosen=()) == replace(whole, seconds=0, chosen=())
    timed.clear()
    run(tmp_path / "s")
    assert timed == []


@pytest.mark.slow
def test_workers_change_no_figure_and_an_end_of_the_driver_loses_none(tmp_path: Path, timed: list[str]) -> None:
    """Ended when two workers have done two of three plans; one goes on, and its figures are those of one alone."""

    some = {"methods": ["tome"], "ratios": (0.5, 0.6, 0.7)}

    class Ending(Ears):
        def progress(self, done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", workers=2, listener=Ending(), **some)
    lines = (tmp_path / "s" / "sweep.journal").read_text().splitlines()[1:]
    assert [line.partition(":")[0] for line in lines] == ['{"look"', '{"answered"'] * 2
    found, whole = run(tmp_path / "s", workers=1, **some), run(None, workers=1, **some)
    assert found.points == whole.points
    assert (found.workers, whole.ray) == (1, None)
    held = (tmp_path / "s" / "sweep.journal").read_text().splitlines()[1:]
    assert held[:4] == lines
    assert sum('"answered"' in line for line in held) == len({row.name for row in found.whole} | set(_names(lines)))


def _names(lines: list[str]) -> list[str]:
    rows = [json.loads(line)["answered"] for line in lines if '"answered"' in line]
    return [f"{row['method']} at {row['ratio']:g} in {row['precision']}" for row in rows]


def test_the_front_is_timed_anew_in_the_same_rounds(timed: list[str]) -> None:
    found = run(None, look=1)  # one image has no interval: nothing is stopped by it
    speeds = {row.name: row.speed for row in found.whole if row.speed is not None}
    again = {name for name, speed in speeds.items() if speed.rivals}
    assert set(found.on_front) <= again or len(found.front) == 1
    for name, speed in speeds.items():
        ratio = found.point(name).ratio
        assert speed.speedup == pytest.approx((0.9 if name in again else 0.97) / ratio)
        assert speed.overhead == 1.0


def test_a_sweep_grows_by_another_grid(tmp_path: Path, timed: list[str]) -> None:
    run(tmp_path / "s", methods=["tome"], ratios=(0.7,))
    found = run(tmp_path / "s", methods=["random"], ratios=(0.5,))
    assert [row.name for row in found.points] == ["tome at 0.7 in fp32", "random at 0.5 in fp32"]
    assert len(timed) == 2


def test_a_journal_of_something_else_is_refused(tmp_path: Path, timed: list[str]) -> None:
    run(tmp_path / "s", methods=["tome"], ratios=(0.7,))
    for setting, words in (("model.random=1", "another model"), ("bench.runs=7", "another recipe")):
        with pytest.raises(InputError, match=rf"sweep.journal is of {words}; name another folder, or remove the file"):
            run(tmp_path / "s", settings=[setting])
    with open(tmp_path / "s" / "sweep.journal", "a") as file:
        file.write('{"row": {"method": 3}}\n')
    with pytest.raises(InputError, match="line 5 of .*sweep.journal is damaged"):
        run(tmp_path / "s")


def test_what_cannot_be_had_is_a_row_or_where_it_is_all_an_error(tmp_path: Path, timed: list[str]) -> None:
    found = run(None, methods=["tome"], ratios=(0.05, 0.7))
    assert found.points[0].refused is not None
    assert "the least is" in found.points[0].refused
    assert found.points[1].is_whole
    for _ in range(2):
        with pytest.raises(InputError, match="there is no such point: .*the least is"):
            run(tmp_path / "s", methods=["tome"], ratios=(0.05,))
    grown = run(tmp_path / "s", methods=["tome"], ratios=(0.7,))
    assert [row.refused is None for row in grown.points] == [False, True]


def test_a_target_that_does_not_run_here_is_judged_by_gmacs() -> None:
    found = run(None, settings={"export.target": "trt-10"})
    assert found.untimed == "trt-10.13 does not run here"
    assert all(row.speed is None for row in found.points)
    assert {one.constraint for one in found.chosen} == {"agreement"}
    assert found.front


def test_the_time_left_is_that_of_measured_points() -> None:
    seconds = iter([0.0, 60.0, 61.0, 91.0])
    clock = Clock(10, lambda: next(seconds))
    assert clock.words() == ""
    clock.tick(measured=True)
    assert clock.words() == " (at most 9 min left)"
    clock.tick(measured=False)
    clock.tick(measured=True)
    assert clock.words() == " (at most 5 min left)"


@pytest.mark.slow
def test_graphs_are_those_that_an_export_of_the_recipe_takes(tmp_path: Path) -> None:
    class Stages(Ears):
        def __init__(self) -> None:
            super().__init__()
            self.cached: set[str] = set()

        def stage(self, name: str, cached: bool = False) -> None:
            if cached:
                self.cached.add(name)

    found = run(tmp_path / "s", methods=["zero_tprune"], ratios=(0.7,), agreements=(0.1,), speedups=(1e-6,))
    (row,) = found.points
    assert row.speed is not None
    assert row.speed.interval[0] <= row.speed.speedup <= row.speed.interval[1]
    assert [one.point for one in found.chosen] == [row.name, row.name]
    held = {path.name.partition("-")[0] for path in cache_of(tmp_path / "s").root.glob("[a-z]*")}
    assert held == {"calibrate", "reference", "dense", "trace", "passes", "forms", "bench"}
    heard = Stages()
    bundle = api.export(tmp_path / "s" / "recipes" / "agreement-0.1.yaml", tmp_path / "out", listener=heard)
    assert {"calibrate", "reference", "dense", "trace", "passes"} <= heard.cached
    assert row.answers is not None
    assert bundle.fidelity.images == row.answers.images
    assert bundle.fidelity.agreement == pytest.approx(row.answers.agreement, abs=1 / 12)
