"""Targets and precisions that a recipe leaves open: all that this machine has are tried, and the fastest is kept.

Every candidate walks through the pipeline up to its proof, so what is kept has passed the parity ladder within the
limits of its precision. What is left is timed in turns in one process. All candidates share what they have in common:
calibration, PyTorch's outputs and traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...exporter.core import layout
from ...exporter.core.cores import usable_cores
from ...exporter.core.errors import EnvironmentLackError, ParityError, VitrimError
from ...exporter.core.fidelity import Fidelity as Answers
from ...exporter.core.memory import give_back_memory
from ...exporter.core.targets import PRECISIONS, Precision, Target, group_of
from ...exporter.runtime.bench.choice import Choice, Tried
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.stats import paired_ratio
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.commands.bench import random_images
from ...exporter.runtime.machine.environment import cpu_name
from ...exporter.runtime.openvino.runner import capabilities
from ..stages.graphs import final_graphs
from ..stages.trial import CLEARLY
from .pack import Pack

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from ..stages.stage import Stage
    from .walk import Run

ROUNDS = 40
_FAST = {"bf16": "BF16", "fp16": "FP16"}  # what OpenVINO calls a processor that computes in it
_EXCEPT = frozenset({"bench", "gate"})  # of the stages, what only the candidate that is kept needs


@dataclass(frozen=True)
class Candidate:
    """A target in a precision."""

    target: Target
    precision: Precision

    def __str__(self) -> str:
        return f"{self.target.name} in {self.precision}"

    def recipe(self, recipe: Recipe) -> Recipe:
        """A recipe with it in place of what was left open; a precision stays, as speed is judged here."""
        export = recipe.export.model_copy(update={"target": self.target.name})
        section = recipe.precision.model_copy(update={"name": self.precision, "keep_slower": True})
        chosen = recipe.model_copy(update={"export": export, "precision": section})
        return chosen.within(recipe.folder, recipe.file)


def is_open(recipe: Recipe) -> bool:
    """Whether a recipe leaves the target or the precision to be chosen here."""
    return len(group_of(recipe.export.target)) > 1 or recipe.precision.name == "auto"


def candidates(recipe: Recipe) -> list[Candidate]:
    """Everything that a recipe leaves to be tried, float32 of the first target first.

    A group of targets leaves the precision open, too, unless the recipe names one.
    """
    targets = group_of(recipe.export.target)
    section = recipe.precision
    left_open = section.name == "auto" or (len(targets) > 1 and "name" not in section.model_fields_set)
    found = []
    for target in targets:
        names = [name for name in PRECISIONS if name in target.precisions]
        found += [Candidate(target, name) for name in names if left_open or name == section.name]
    return found


def decide(run: Run, stages: Sequence[type[Stage]]) -> tuple[Run, Choice]:
    """Try every candidate and keep the fastest.

    Args:
        run: of the recipe with a first candidate; its cache must keep the stages of all.
        stages: of a whole export, in order.

    Returns:
        the run of the candidate that is kept, all stages but the benchmark done; and what was tried.

    Raises:
        ParityError: none holds; the first one's failure is named.
    """
    tried: dict[Candidate, Tried] = {}
    passed: dict[Candidate, Run] = {}
    everything = candidates(run.recipe)
    for index, one in enumerate(everything):
        run.listener.note(f"trying {one} ({index + 1} of {len(everything)})")
        why = lacking(one)
        if why is None:
            own = run.of(one.recipe(run.recipe), one.target)
            try:
                for stage in stages:
                    if stage.name not in _EXCEPT:
                        own.do(stage)
            except VitrimError as error:
                if not passed and not isinstance(error, EnvironmentLackError | ParityError):
                    raise
                why = str(error)
            else:
                passed[one] = own
        tried[one] = Tried(one.target.name, one.precision, refused=why)
    if not passed:
        raise ParityError(f"nothing that was tried holds: {next(iter(tried.values())).refused}")
    threads = run.recipe.bench.threads
    rows = timed(passed, threads)
    tried |= rows
    kept = fastest(rows)
    where = cpu_name(), threads or usable_cores(), run.recipe.export.batch
    choice = Choice(tuple(tried.values()), kept.target.name, kept.precision, *where)
    run.listener.note(f"kept {kept}")
    return passed[kept], choice


def lacking(one: Candidate) -> str | None:
    """What this machine lacks for a candidate, so that it need not be tried; None where nothing is known."""
    if one.target.device is None:
        return None
    try:
        found = capabilities(one.target.device)
    except EnvironmentLackError as error:
        return str(error)
    wanted = _FAST.get(one.precision)
    if wanted is not None and wanted not in found:
        return f"this processor computes {one.precision} in float32"
    return None


def timed(passed: dict[Candidate, Run], threads: int | None) -> dict[Candidate, Tried]:
    """The pruned graphs of some runs, timed in turns.

    Args:
        passed: by candidate, its run; the first one is what the others' speed is given against.
        threads: of the runtimes; None takes all cores.
    """
    calls = {}
    for one, run in passed.items():
        graph = final_graphs(run.view(Pack)).final["pruned"]
        runner, _ = runner_for(graph, one.target, threads, one.precision)
        calls[str(one)] = partial(runner, random_images(runner.shape, runner.dtype))
    samples = interleave(calls, ROUNDS, warmup=0.2)
    del runner
    calls.clear()
    give_back_memory()
    first = next(iter(samples.values()))
    found = {}
    for one, run in passed.items():
        ratio, median = paired_ratio(first, samples[str(one)]), float(np.median(samples[str(one)]))
        answers = Answers.read(run.folders["fidelity"] / layout.FIDELITY, "fidelity report")
        agreement = 1.0 if answers.precision is None else answers.precision.agreement
        found[one] = Tried(one.target.name, one.precision, agreement, median, ratio.median, ratio.interval)
    return found


def fastest(rows: dict[Candidate, Tried]) -> Candidate:
    """The fastest candidate; of those that are as fast, the one nearest to float32."""
    speeds = {one: row.speed for one, row in rows.items() if row.speed is not None}
    best = max(speeds.values())
    equals = [one for one, speed in speeds.items() if speed >= CLEARLY * best]
    return min(equals, key=lambda one: (PRECISIONS.index(one.precision), -speeds[one]))
