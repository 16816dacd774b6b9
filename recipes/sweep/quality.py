"""What a plan keeps of the dense model's answers: the part of a sweep that workers do, as it needs no quiet machine."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...calibration.images.sources import ImageSource, Part, choose
from ...calibration.tokens.outcome import MEMORY, DenseAnswers
from ...exporter.core.errors import EnvironmentLackError, InputError, VitrimError, excerpt
from ...exporter.core.fidelity import Fidelity as Answers
from ...exporter.pruning.budget import Budget
from ..listener import Silence
from ..pipeline.open import Sources
from ..schema.recipe import Recipe
from ..stages.calibrate import make_plan
from .points import Point

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Task:
    """All that a worker has to know; it can be pickled where the model and the images can.

    Attributes:
        dense: the model as it came.
        model: the one whose tokens go: what slimming left of it, or the same one.
        sources: the images.
        look: images of a first look.
        studies: folder of the journals of searches.
        threads: of PyTorch; None leaves them. Sums are the same to the last bit only for the same number.
        memory: bytes of images that are kept decoded.
    """

    dense: Any
    model: Any
    sources: Sources
    look: int
    studies: Path
    threads: int | None = None
    memory: int = MEMORY


@dataclass(frozen=True)
class Ask:
    """What is to be known of a plan.

    Attributes:
        points: of which it is the plan; they differ in precision alone.
        recipe: of one of them.
        budget: the plan where it was made before; None: it is to be made.
        whole: whether all evaluation images are answered, too.
    """

    points: tuple[Point, ...]
    recipe: Recipe
    budget: Budget | None = None
    whole: bool = False


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        budget: the plan.
        look: answers on the first few images.
        answers: on all; None where nobody asked.
        refused: why there is no such plan; the others are None then.
        notes: what a person should know.
    """

    budget: Budget | None = None
    look: Answers | None = None
    answers: Answers | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()


def _silent(done: int, of: int) -> None:
    """Hear nothing."""


class Quality:
    """Makes plans and holds them against the dense model, whose answers are computed when they are first asked for.

    Args:
        task: what is swept.
        progress: called with (images done, images) in every pass over all of them.
    """

    def __init__(self, task: Task, progress: Progress = _silent) -> None:
        self._task, self._progress = task, progress
        self._looks: dict[tuple[object, ...], Answers] = {}

    def __call__(self, ask: Ask) -> Found:
        """A plan with its answers, or why there is none.

        Raises:
            EnvironmentLackError: something is missing here.
        """
        ears = _Notes()
        with threads(self._task.threads):
            try:
                budget = ask.budget or self._plan(ask.recipe, ears)
                look = self.look(budget)
                answers = self.answers(budget) if ask.whole else None
            except EnvironmentLackError:
                raise
            except VitrimError as error:
                return Found(refused=str(error), notes=tuple(ears.heard))
        return Found(budget, look, answers, notes=tuple(ears.heard))

    def begin(self) -> None:
        """Compute the dense answers now, not when they are first asked for."""
        with threads(self._task.threads):
            _ = self._whole

    def look(self, budget: Budget) -> Answers:
        """Answers on the first few images; of the same plan once."""
        key = (budget.method, str(budget.parameters), str(budget.blocks))
        if key not in self._looks:
            self._looks[key] = self._few.held_against(budget)
        return self._looks[key]

    def answers(self, budget: Budget) -> Answers:
        """Answers on all images."""
        with threads(self._task.threads):
            found = self._whole.held_against(budget)
        return replace(found, on_calibration_images=not self._task.sources.disjoint)

    def _plan(self, recipe: Recipe, ears: _Notes) -> Budget:
        task = self._task
        with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
            given = (recipe, task.model, task.sources.calibration, Path(folder), ears, task.dense)
            return make_plan(*given, study=lambda name: task.studies / f"search-{name}.journal")

    @cached_property
    def _few(self) -> DenseAnswers:
        source = self._task.sources.evaluation
        if self._task.look >= len(source):
            return self._whole
        return self._dense(Part(source, choose(len(source), count=self._task.look)), _silent)

    @cached_property
    def _whole(self) -> DenseAnswers:
        return self._dense(self._task.sources.evaluation, self._progress)

    def _dense(self, source: ImageSource, progress: Progress) -> DenseAnswers:
        task = self._task
        return DenseAnswers(task.dense, task.model, source, progress=progress, memory=task.memory)


@dataclass
class _Notes(Silence):
    """A listener that keeps what a person should know."""

    heard: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep."""
        self.heard.append(text)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """PyTorch with so many threads for a while; None leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refuse_unsendable(task: Task) -> None:
    """Refuse what processes cannot be told.

    Raises:
        InputError: the model or the images cannot be pickled.
    """
    try:
        pickle.dumps(task)
    except Exception as error:  # whatever a caller's own classes do
        raise InputError(
            f"this model or these images cannot be sent to workers ({excerpt(str(error), 120)}); leave workers out"
        ) from error
