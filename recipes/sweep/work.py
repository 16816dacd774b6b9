"""What is measured of a point: its plan and a first look, its answers, its graphs in turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...calibration.images.sources import Part, choose
from ...calibration.tokens.outcome import DenseAnswers
from ...exporter.core import layout
from ...exporter.core.answers import Fidelity as Answers
from ...exporter.core.errors import EnvironmentLackError, VitrimError
from ...exporter.pruning.budget import Budget, read_budget
from ...exporter.runtime.bench.report import Bench as Benchmark
from ..pipeline.bench import Bench
from ..pipeline.calibrate import Calibrate
from ..pipeline.fidelity import Fidelity
from ..pipeline.forms import Forms
from ..pipeline.listener import Listener
from ..pipeline.precision import Precision
from ..pipeline.recipe import Recipe
from ..pipeline.reference import Reference
from ..pipeline.rewrite import Rewrite
from ..pipeline.run import Run
from ..pipeline.slim import Slim
from ..pipeline.stage import Stage
from ..pipeline.trace import Trace
from .points import Point, recipe_for
from .result import Row, Speed

PLAN: tuple[type[Stage], ...] = (Slim, Calibrate)
GRAPHS: tuple[type[Stage], ...] = (Reference, Trace, Rewrite, Forms, Precision)


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
        few, whole: dense answers on the first few evaluation images, and on all.
        timed: whether graphs can be timed here.
    """

    run: Run
    listener: Listener
    few: DenseAnswers
    whole: DenseAnswers
    timed: bool

    @classmethod
    def begin(cls, run: Run, look: int) -> Work:
        """Answer all evaluation images with the dense model.

        Args:
            run: of the base recipe.
            look: images of a first look.
        """
        source, progress = run.sources.evaluation, run.listener.progress
        models = (run.dense(), run.model())
        whole = DenseAnswers(*models, source, progress=progress)
        few = whole
        if look < len(source):
            few = DenseAnswers(*models, Part(source, choose(len(source), count=look)))
        quiet = replace(run, listener=Within(run.listener))
        return cls(quiet, run.listener, few, whole, Bench.wanted(run.recipe))

    def open(self, recipe: Recipe) -> Run:
        """A run of a point's recipe, its plan made."""
        own = self.run.of(recipe, self.run.target)
        for stage in PLAN:
            own.do(stage)
        return own

    def look(self, base: Recipe, point: Point, known: dict[tuple[object, ...], Answers]) -> Row:
        """A point's plan, and its answers on the first few images.

        Args:
            base: recipe of the sweep.
            point: which.
            known: by plan, answers of points that were looked at; this one's are added.
        """
        row = Row(point.method, point.ratio, point.precision)
        try:
            budget = _plan(self.open(recipe_for(base, point)))
            key = (budget.method, str(budget.parameters), str(budget.blocks))
            if key not in known:
                known[key] = self.few.held_against(budget)
        except EnvironmentLackError:
            raise
        except VitrimError as error:
            return replace(row, refused=str(error))
        floor = budget.gmacs["pruned"]
        tokens = tuple(block.after for block in budget.blocks)
        return replace(row, tokens=tokens, gmacs=budget.total_gmacs, floor_gmacs=floor, look=known[key])

    def answered(self, base: Recipe, point: Point, row: Row) -> Row:
        """A row with answers on all images, of PyTorch's model; what float32 is not gets its own later."""
        answers = self.whole.held_against(_plan(self.open(recipe_for(base, point))))
        return replace(row, answers=replace(answers, on_calibration_images=not self.run.sources.disjoint))

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


def _plan(run: Run) -> Budget:
    return read_budget(run.folders["calibrate"] / layout.BUDGET)


def _speed(file: Path) -> Speed | None:
    """What a benchmark says of a graph; None where its target does not run here."""
    if not file.exists():
        return None
    bench = Benchmark.read(file, "benchmark")
    times = bench.pruned.median, bench.dense.median
    return Speed(bench.speedup, bench.speedup_interval, *times, bench.overhead, bench.warning)
