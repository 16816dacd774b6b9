"""What is measured of a point: its plan and answers, by workers or here, and its graphs in turns, always here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from ...calibration.tokens.outcome import MEMORY
from ...exporter.core import layout
from ...exporter.core.errors import EnvironmentLackError, VitrimError
from ...exporter.core.fidelity import Fidelity as Answers
from ...exporter.core.memory import give_back_memory
from ...exporter.core.targets import Precision as PrecisionName
from ...exporter.core.targets import Target
from ...exporter.pruning.budget import Budget, read_budget, write_budget
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.report import Bench as Benchmark
from ...exporter.runtime.bench.stats import paired_ratio
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.commands.bench import random_images
from ...exporter.runtime.machine.environment import Watch, busy, environment
from ..listener import Listener
from ..pipeline.pack import Pack
from ..pipeline.walk import Run
from ..pools.choose import ALONE, Crew, open_pool
from ..schema.recipe import Recipe
from ..schema.sections.outputs import BenchSection
from ..stages.bench import Bench
from ..stages.calibrate import Calibrate
from ..stages.dense import Dense
from ..stages.fidelity import Fidelity
from ..stages.forms import Forms, weight_bytes
from ..stages.graphs import final_graphs
from ..stages.precision import Precision
from ..stages.reference import Reference
from ..stages.rewrite import Rewrite
from ..stages.slim import Slim
from ..stages.stage import Stage
from ..stages.trace import Trace
from .points import Point, recipe_for
from .quality import Ask, Found, Quality, Task, refuse_unsendable
from .result import Row, Speed

PLAN: tuple[type[Stage], ...] = (Slim, Calibrate)
TOGETHER = 2 << 30  # bytes of weights that may be loaded at once
GRAPHS: tuple[type[Stage], ...] = (Reference, Dense, Trace, Rewrite, Forms, Precision)


class Within:
    """A listener for the stages of a point: their progress is the sweep's own matter, and a note is heard once."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._heard = listener, set[str]()

    def stage(self, name: str, cached: bool = False) -> None:
        """Ignore."""

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Pass on what is new."""
        if text not in self._heard:
            self._heard.add(text)
            self._listener.note(text)


@dataclass
class Work:
    """Measures points of one sweep.

    Attributes:
        run: of the base recipe, its images and model opened; silent.
        listener: hears how far the sweep is.
        task: what workers have to know.
        quality: a worker of this process.
        timed: whether graphs can be timed here.
        crew: who makes plans and holds them against the dense model.
    """

    run: Run
    listener: Listener
    task: Task
    quality: Quality
    timed: bool
    crew: Crew = ALONE

    @classmethod
    def begin(cls, run: Run, look: int, crew: Crew = ALONE) -> Work:
        """Work on the points of a recipe.

        Args:
            run: of the base recipe, slimmed where that is wanted.
            look: images of a first look.
            crew: one that is asked for works with one thread each, so that no number of workers changes a bit.
        """
        task = Task(
            dense=run.dense(),
            model=run.model(),
            sources=run.sources,
            look=look,
            studies=run.cache.root,
            threads=None if crew == ALONE else 1,
            memory=MEMORY // (crew.workers or 1),
        )
        quality, quiet = Quality(task, run.listener.progress), replace(run, listener=Within(run.listener))
        return cls(quiet, run.listener, task, quality, Bench.wanted(run.recipe), crew)

    def asks(self, base: Recipe, points: Sequence[Point]) -> list[Ask]:
        """What is to be known of points, one for each plan. Workers answer all images at once: nothing is timed yet."""
        runs, groups = dict[str, Run](), dict[str, list[Point]]()
        for point in points:
            own = self._slimmed(recipe_for(base, point))
            key = own.key_of(Calibrate)
            runs.setdefault(key, own)
            groups.setdefault(key, []).append(point)
        found = []
        for key, own in runs.items():
            folder = own.cache.find(Calibrate, key)
            budget = None if folder is None else read_budget(folder / layout.BUDGET)
            found.append(Ask(tuple(groups[key]), own.recipe, budget, whole=not self.crew.in_process))
        return found

    def looked(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Found]]:
        """Ask the crew; plans that are new are kept in the cache, where the stages of a point find them."""
        if asks and self.crew.ray is None and not self.crew.in_process:
            refuse_unsendable(self.task)
        make = self._here if self.crew.in_process else partial(Quality, self.task)
        for ask, found in open_pool(self.crew, note=self.listener.note).map(make, asks):
            for text in found.notes:
                self.run.listener.note(text)
            if ask.budget is None and found.budget is not None:
                self._slimmed(ask.recipe).do(Calibrate, partial(_write, found.budget))
            yield ask, found

    def _here(self) -> Quality:
        return self.quality

    def open(self, recipe: Recipe) -> Run:
        """A run of a point's recipe, its plan made."""
        own = self._slimmed(recipe)
        own.do(Calibrate)
        return own

    def _slimmed(self, recipe: Recipe) -> Run:
        own = self.run.of(recipe, self.run.target)
        own.do(Slim)
        return own

    def answered(self, base: Recipe, point: Point, row: Row) -> Row:
        """A row with answers on all images, of PyTorch's model; what float32 is not gets its own later."""
        return replace(row, answers=self.quality.answers(_plan(self.open(recipe_for(base, point)))))

    def measured(self, base: Recipe, point: Point, row: Row) -> tuple[Row, list[str]]:
        """A row with its graphs timed in turns where they run here, and of another precision with its answers.

        Returns:
            the row, and the names of its stages in the cache.
        """
        narrow = point.precision != "fp32"
        if not self.timed and not narrow:
            return row, []
        own = self.open(recipe_for(base, point))
        try:
            for stage in (*GRAPHS, *([Fidelity] if narrow else []), *([Bench] if self.timed else [])):
                own.do(stage)
        except EnvironmentLackError:
            raise
        except VitrimError as error:
            return replace(row, refused=str(error)), []
        if narrow:
            row = replace(row, answers=Answers.read(own.folders["fidelity"] / layout.FIDELITY, "fidelity report"))
        speed = _speed(own.folders["bench"] / layout.BENCH) if self.timed else None
        return replace(row, speed=speed), [path.name for path in own.folders.values()]

    def together(self, base: Recipe, points: Sequence[Point]) -> dict[Point, Speed]:
        """Speeds of points that were measured before, timed anew in the same rounds; their graphs are in the cache.

        Args:
            base: recipe of the sweep.
            points: of which as many are loaded at once as `TOGETHER` allows, with the dense graph beside them.
        """
        graphs: dict[Point, tuple[Path, Path]] = {}
        for point in points:
            own = self.open(recipe_for(base, point))
            for stage in GRAPHS:
                own.do(stage)
            final = final_graphs(own.view(Pack)).final
            graphs[point] = final["dense"], final["pruned"]
        found: dict[Point, Speed] = {}
        size = max(1, TOGETHER // max(weight_bytes(pruned) for _, pruned in graphs.values()))
        for start in range(0, len(points), size):
            part = {point: graphs[point] for point in points[start : start + size]}
            found |= _in_turns(part, self.run.target, self.run.recipe.bench, self.listener)
            give_back_memory()
        return found


def _in_turns(
    graphs: Mapping[Point, tuple[Path, Path]], target: Target, section: BenchSection, listener: Listener
) -> dict[Point, Speed]:
    """Speeds of graphs timed in the same rounds.

    Args:
        graphs: by point its dense graph, of which the first is taken, and its pruned one.
        target, section: where and how.
        listener: hears how many rounds are done.
    """
    dense = runner_for(next(iter(graphs.values()))[0], target, section.threads)[0]
    runners = {"dense": dense} | {
        str(point): runner_for(pruned, target, section.threads, cast("PrecisionName", point.precision))[0]
        for point, (_, pruned) in graphs.items()
    }
    calls = {name: partial(one, random_images(one.shape, one.dtype)) for name, one in runners.items()}
    with Watch() as watch:
        samples = interleave(calls, section.runs, section.warmup, listener.progress)
    seen = {**environment(section.threads), "other_cores": watch.other_cores, "stolen_cores": watch.stolen_cores}
    median = {name: float(np.median(values)) for name, values in samples.items()}
    found = {}
    for point in graphs:
        ratio = paired_ratio(samples["dense"], samples[str(point)])
        times = median[str(point)], median["dense"]
        found[point] = Speed(ratio.median, ratio.interval, *times, rivals=len(graphs), warning=busy(seen))
    return found


def row_of(point: Point, found: Found) -> Row:
    """A point's row after the first look."""
    row, budget = Row(point.method, point.ratio, point.precision), found.budget
    if budget is None:
        return replace(row, refused=found.refused)
    floor, tokens = budget.gmacs["pruned"], tuple(block.after for block in budget.blocks)
    return replace(row, tokens=tokens, gmacs=budget.total_gmacs, floor_gmacs=floor, look=found.look)


def _write(budget: Budget, folder: Path) -> None:
    write_budget(budget, folder / layout.BUDGET)


def _plan(run: Run) -> Budget:
    return read_budget(run.folders["calibrate"] / layout.BUDGET)


def _speed(file: Path) -> Speed | None:
    """What a benchmark says of a graph; None where its target does not run here."""
    if not file.exists():
        return None
    bench = Benchmark.read(file, "benchmark")
    if bench.cpu_only is not None:  # times of this CPU, which say nothing of the target
        return None
    times = bench.pruned.median, bench.dense.median
    return Speed(bench.speedup, bench.speedup_interval, *times, bench.overhead, warning=bench.warning)
