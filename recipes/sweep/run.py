"""`vitrim sweep`: a first look at every point, then points in turn, the most promising first, until all are known.

What is finished is a line of the journal, so that a run that was killed goes on with the point that it was at. Workers
make plans and answers. They have ended when the first graph is timed, which only this process does, one at a time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...calibration.tokens.cost import dense_plan, model_macs
from ...exporter.core.cores import usable_cores
from ...exporter.core.errors import InputError
from ...exporter.core.files import explain_os_error
from ...exporter.core.memory import only_new_garbage
from ...exporter.pruning.shape import describe
from ...exporter.runtime.machine.environment import cpu_name
from ..listener import Listener, Silence
from ..pipeline.cache import cache_of
from ..pipeline.open import NOTHING, Given
from ..pipeline.run import open_run
from ..pipeline.walk import Run
from ..pools.choose import ALONE, Crew
from ..pools.lines import Kind, Lines
from ..schema.recipe import Recipe
from ..stages.slim import Slim
from ..stages.stage import short_hash
from .dominate import dominator
from .points import Point, grid, in_order, layers, recipe_for, shared_by_all
from .result import FORMAT, JOURNAL, Chosen, Row, Sweep, choose
from .wanted import Wanted
from .work import PLAN, Work, row_of
from .write import check_folder, write_files

RACES = 2
_KIND = Kind(
    "vitrim-sweep-journal/1",
    "journal of a sweep",
    {
        "version": "another version of vitrim",
        "model": "another model",
        "calibration": "other calibration images",
        "evaluation": "other evaluation images",
        "recipe": "another recipe",
        "machine": "another machine",
    },
    "name another folder, or remove the file to begin anew",
)


@dataclass
class Known:
    """What is finished, by point.

    Attributes:
        looks: plans and first looks.
        answered: the same with answers on all images.
        rows: points that need no more work.
        stages: folders of a point's stages in the cache.
        resumed: points that an earlier run had finished.
    """

    looks: dict[Point, Row] = field(default_factory=dict)
    answered: dict[Point, Row] = field(default_factory=dict)
    rows: dict[Point, Row] = field(default_factory=dict)
    stages: dict[Point, list[str]] = field(default_factory=dict)
    resumed: int = 0


@only_new_garbage()
def sweep(
    recipe: Recipe,
    out: str | os.PathLike[str] | None,
    wanted: Wanted = Wanted(),
    *,
    crew: Crew = ALONE,
    listener: Listener | None = None,
    given: Given = NOTHING,
) -> Sweep:
    """Try methods x budgets x precisions.

    Args:
        recipe: of which every point takes all but method, budget and precision.
        out: folder of the sweep; one that was stopped goes on. None: nothing is written.
        wanted: the grid, and the constraints.
        crew: who makes plans and holds them against the dense model.
        listener: hears progress.
        given: what Python hands over instead of naming it in the recipe.

    Raises:
        InputError: bad input; the folder is no sweep, or one of something else; no point can be had.
        EnvironmentLackError: something is missing here, or a place cannot be written.
    """
    heard = listener or Silence()
    if out is not None:
        return _sweep(recipe, Path(os.path.abspath(out)), wanted, crew, heard, given)
    with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        return _sweep(recipe, Path(folder) / "sweep", wanted, crew, heard, given)


def _sweep(base: Recipe, folder: Path, wanted: Wanted, crew: Crew, listener: Listener, given: Given) -> Sweep:
    begun, points = time.perf_counter(), grid(base, wanted)
    check_folder(folder, base)
    run = open_run(recipe_for(base, points[0]), cache_of(folder, keeps=True), listener, given)
    with run.cache.locked(listener.note):
        run.cache.sweep()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, folder) from error
        with Lines(folder / JOURNAL, _KIND, _head(run, base)) as journal:
            known = _read(journal)
            if known.resumed:
                listener.note(f"goes on after {known.resumed} points that {journal.path} has")
            _work(run, base, points, wanted.look, crew, known, journal)
        if all(known.rows[point].refused is not None for point in points):
            raise InputError(f"there is no such point: {known.rows[points[0]].refused}")
        result = replace(
            _result(run, wanted, known), workers=crew.asked, ray=crew.ray, seconds=time.perf_counter() - begun
        )
        names = {str(point): recipe_for(base, point) for point in known.rows}
        in_memory = base.model.given or base.images.given or (base.evaluate is not None and base.evaluate.given)
        return write_files(folder, result, {} if in_memory else names)


def _head(run: Run, base: Recipe) -> dict[str, str]:
    """What every point depends on."""
    return {
        "version": __version__,
        "model": run.content("dense"),
        "calibration": run.sources.calibration.fingerprint(),
        "evaluation": run.sources.evaluation.fingerprint(),
        "recipe": short_hash(shared_by_all(base)),
        "machine": cpu_name(),
    }


def _read(journal: Lines) -> Known:
    """What a journal has, also of points of another grid: a sweep grows."""
    known = Known()
    for index, line in enumerate(journal.found):
        try:
            row = Row.from_json(line.get("look") or line.get("answered") or line.get("row"), "row")
        except InputError as error:
            raise journal.damaged(index) from error
        point = Point(row.method, row.ratio, row.precision)
        if "look" in line:
            known.looks[point] = row
        if "answered" in line:
            known.answered[point] = row
        if "row" in line or row.refused is not None:
            known.rows[point] = row
            known.stages[point] = [str(name) for name in line.get("stages", ())]
    known.resumed = len(known.rows)
    return known


def _work(run: Run, base: Recipe, points: list[Point], look: int, crew: Crew, known: Known, journal: Lines) -> None:
    """Finish every point that is not."""
    if all(point in known.rows for point in points) and not _rivals(known):
        return
    run.do(Slim)
    work = Work.begin(run, look, crew)
    if crew.in_process:
        run.listener.stage(f"dense answers on {len(run.sources.evaluation)} images")
        work.quality.begin()
    _look(work, base, points, known, journal)
    costs = {
        point: (row.gmacs, row.look.kl)
        for point, row in known.looks.items()
        if row.gmacs is not None and row.look is not None
    }
    ordered = [
        point
        for precision in dict.fromkeys(one.precision for one in points)
        for point in layers([one for one in points if one.precision == precision and one in costs], costs)
    ]
    _finish(work, base, ordered, known, journal)
    _race(work, base, known, journal)


def _race(work: Work, base: Recipe, known: Known, journal: Lines) -> None:
    """Time the points on the front anew, all in the same rounds: what was lucky to get there is found out."""
    for _ in range(RACES):  # others may come to the front where one was too lucky
        rivals = _rivals(known)
        if not rivals:
            return
        work.listener.stage(f"{len(rivals)} points on the front, in the same rounds")
        for point, speed in work.together(base, rivals).items():
            row = known.rows[point]
            assert row.speed is not None
            row = replace(row, speed=replace(speed, overhead=row.speed.overhead))
            journal.append({"row": row.to_json(), "stages": known.stages[point]})
            known.rows[point] = row


def _rivals(known: Known) -> list[Point]:
    """The points on the front, where there are two that were not yet timed in the same rounds."""
    front = {row.name: row for row in _bare(tuple(known.rows.values())).front if row.speed is not None}
    alone = [row for row in front.values() if row.speed is not None and not row.speed.rivals]
    if len(front) < 2 or not alone:
        return []
    return [point for point in known.rows if str(point) in front]


def _look(work: Work, base: Recipe, points: list[Point], known: Known, journal: Lines) -> None:
    """A first look at every point that has none; by workers all of their answers, while nothing is timed."""
    pooled = not work.crew.in_process
    seen = known.answered if pooled else known.looks
    todo = [point for point in points if point not in known.rows and point not in seen]
    more = f", and answers on {len(work.run.sources.evaluation)} images" if pooled else ""
    work.listener.stage(f"a first look at {len(points)} points{more}")
    for ask, found in work.looked(work.asks(base, todo)):
        for point in ask.points:
            if point not in known.looks:
                row = row_of(point, found)
                journal.append({"look": row.to_json()})
                known.looks[point] = row
                if row.refused is not None:
                    known.rows[point] = row
            if found.answers is not None:
                _answered(point, replace(known.looks[point], answers=found.answers), known, journal)
            todo.remove(point)
        work.listener.progress(len(points) - len(todo), len(points))


def _answered(point: Point, row: Row, known: Known, journal: Lines) -> Row:
    journal.append({"answered": row.to_json()})
    known.answered[point] = row
    return row


def _finish(work: Work, base: Recipe, ordered: list[Point], known: Known, journal: Lines) -> None:
    """Points in order: stopped where they are dominated, else answered and timed."""
    todo = [point for point in ordered if point not in known.rows]
    dense, clock = dense_gmacs(work.run), Clock(len(todo))
    for point in todo:
        work.listener.stage(f"{len(ordered) - clock.left + 1} of {len(ordered)}: {point}{clock.words()}")
        finished = [row for row in known.rows.values() if row.is_whole]
        if any(row.speed is None for row in finished):
            work.timed = False  # the target does not run here after all
        row, stages = _one(work, base, point, finished, dense, known, journal)
        journal.append({"row": row.to_json(), "stages": stages})
        known.rows[point], known.stages[point] = row, stages
        _drop(work.run, known)
        clock.tick(measured=row.stopped is None)


def _one(
    work: Work, base: Recipe, point: Point, finished: list[Row], dense: float, known: Known, journal: Lines
) -> tuple[Row, list[str]]:
    """A finished row of a point, and its stages in the cache."""
    look = known.looks[point]
    stopped = dominator(look, finished, dense, work.timed)
    if stopped is not None:
        return replace(look, stopped=stopped), []
    row = known.answered.get(point) or _answered(point, work.answered(base, point, look), known, journal)
    stopped = dominator(row, finished, dense, work.timed)
    if stopped is not None:
        return replace(row, stopped=stopped), []
    return work.measured(base, point, row)


def _drop(run: Run, known: Known) -> None:
    """Let go of the graphs of points that are not on the front: a sweep makes many."""
    rows = tuple(known.rows.values())
    front = {row.name for row in _bare(rows).front}
    kept = {name for point, names in known.stages.items() if str(point) in front for name in names}
    run.cache.keep_only(kept, {stage.name for stage in PLAN})


class Clock:
    """How long the rest will take, by what points have taken so far.

    Args:
        left: points.
        now: tells seconds.
    """

    def __init__(self, left: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.left, self._now, self._last = left, now, now()
        self._spent = {True: 0.0, False: 0.0}
        self._points = {True: 0, False: 0}

    def tick(self, measured: bool) -> None:
        """A point is done, measured or stopped."""
        now = self._now()
        self._spent[measured] += now - self._last
        self._points[measured] += 1
        self.left, self._last = self.left - 1, now

    def words(self) -> str:
        """What is left at most, were every point measured; nothing before the first was."""
        if not self._points[True]:
            return ""
        seconds = self.left * self._spent[True] / self._points[True]
        return f" (at most {seconds / 60:.0f} min left)" if seconds >= 90 else f" (at most {seconds:.0f} s left)"


def dense_gmacs(run: Run) -> float:
    """GMACs of the dense model, as papers count."""
    shape = describe(run.dense())
    return model_macs(shape, dense_plan(shape)) / 1e9


def _bare(rows: tuple[Row, ...]) -> Sweep:
    """Rows alone as a result, for its front."""
    return Sweep(FORMAT, "", "", 1, 0.0, 0, False, "", 0, rows)


def _result(run: Run, wanted: Wanted, known: Known) -> Sweep:
    rows = tuple(known.rows[point] for point in in_order(known.rows))
    timed = any(row.speed is not None for row in rows)
    asked: list[tuple[Any, float]] = [("agreement", bound) for bound in wanted.agreements]
    asked += [("speedup", bound) for bound in wanted.speedups] if timed else []
    chosen: tuple[Chosen, ...] = tuple(choose(rows, constraint, bound) for constraint, bound in asked)
    return Sweep(
        format=FORMAT,
        model=run.name,
        target=run.target.name,
        batch=run.recipe.export.batch,
        dense_gmacs=dense_gmacs(run),
        images=len(run.sources.evaluation),
        on_calibration_images=not run.sources.disjoint,
        cpu=cpu_name(),
        threads=run.recipe.bench.threads or usable_cores(),
        points=rows,
        chosen=chosen,
        untimed=None if timed else f"{run.target.name} does not run here",
        resumed=known.resumed,
    )
