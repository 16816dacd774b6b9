"""Steps done one by one, or several at once, within the time that there is."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vitrim.exporter.core import sources
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.tensorrt.family import family_of

from .child import StepError, run_child
from .keep import Keep, Outcome
from .plan import LIMITS, TORCH, Step, chains
from .results import result_of
from .steps import METER

SCRIPT = Path(__file__).resolve().parents[1] / "engines.py"
NOT_PREPARED = (
    "it was not prepared with these options: run `python benchmarks/engines.py prepare` where PyTorch is, and bring "
    "the folder"
)
Command = Callable[[Step], Sequence[str]]


@functools.cache
def code_of(module: str) -> str:
    """Changes when any code that a module runs does."""
    return sources.digest(module)


@dataclass
class Day:
    """Everything that one call does.

    Attributes:
        work: folder of all results.
        machine: what `steps.probe` found; None where nothing needs it.
        deadline: of `time.monotonic`, when the last step must have ended.
        command: what does a step; the file of its result is added.
        environment: variables of the children beside this process's own.
        exports: whether graphs may be made here; else only what was prepared is used.
        say: hears a line per step.
        notes: by name, why a step was not tried.
    """

    work: Path
    machine: dict[str, Any] | None
    deadline: float
    command: Command
    environment: dict[str, str] = field(default_factory=dict)
    exports: bool = True
    say: Callable[[str], None] = print
    notes: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.keep = Keep(self.work / "steps")

    def is_done(self, step: Step) -> bool:
        """Whether a step need not be done again: its result is of the same code, needs and machine."""
        outcome = self.keep.of(step)
        if outcome is None or outcome.result is None or outcome.step != step:
            return False
        if not all(self.is_done(other) for other in step.needs):
            return False
        if step.kind == "export" and not self.exports:
            return True
        return outcome.key == self.keep.key(step, self.facts(step))

    def facts(self, step: Step) -> dict[str, Any]:
        """What a step's result depends on, but for the step and its needs."""
        if step.kind == "export":
            return {"code": code_of("recipes.pipeline.run")}
        found = {} if self.machine is None else dict(self.machine["facts"])
        if step.target == TORCH:
            return {key: found.get(key) for key in ("gpu", "driver", TORCH)}
        family = family_of(get_target(step.target))
        if step.kind == "build" and family.builds_anywhere:
            return {"code": code_of("exporter.runtime.tensorrt.engine"), family.name: found.get(family.name)}
        return {key: found.get(key) for key in ("gpu", "driver", family.name)}

    def lacks(self, step: Step) -> str | None:
        """Why a step cannot be tried here and now, in one line; None where it can."""
        if step.kind == "export":
            return None if self.exports else NOT_PREPARED
        assert self.machine is not None
        name = TORCH if step.target == TORCH else family_of(get_target(step.target)).name
        missing: str | None = self.machine["builds" if step.kind == "build" else "runs"].get(name)
        if missing is None and step.kind == "energy":
            missing = self.machine["runs"].get(METER)
        if missing:
            return missing
        for other in step.needs:
            if not self.is_done(other):
                return f"{other.name} is needed: {self.why_not(other)}"
        return None

    def why_not(self, step: Step) -> str:
        """Why a step has no result."""
        if step.name in self.notes:
            return self.notes[step.name]
        outcome = self.keep.of(step)
        return (outcome.reason if outcome is not None else None) or "it has not been done"

    def do(self, step: Step) -> None:
        """Do a step if it is not done, can be done, and fits into the time that is left; say how it went."""
        self.notes.pop(step.name, None)
        if self.stop.is_set() or self.is_done(step):
            return
        reason, left = self.lacks(step), self.deadline - time.monotonic()
        expected = self.keep.estimate(step)
        if reason is None and expected > left:
            reason = f"not begun: {max(left, 0):.0f} s were left, and it takes about {expected:.0f} s"
        if reason is not None:
            self.notes[step.name] = reason
            self.say(f"{step.name}: {reason}")
            return
        self._attempt(step, min(LIMITS[step.kind], left))

    def _attempt(self, step: Step, limit: float) -> None:
        key, began = self.keep.key(step, self.facts(step)), time.monotonic()
        log = self.work / "logs" / f"{step.name}.log"
        result, reason = None, None
        try:
            result = run_child(
                self.command(step),
                limit,
                log,
                partial(result_of, step),
                self.environment,
                self.stop,
            )
        except StepError as error:
            reason = str(error).replace(f"{self.work}{os.sep}", "")  # tables name no path of a machine
        if self.stop.is_set():
            return
        seconds = time.monotonic() - began
        self.keep.put(Outcome(step, key, seconds, result, reason))
        self.say(f"{step.name}: {reason or f'{seconds:.1f} s'}")


def in_turn(day: Day, steps: Sequence[Step], after: Callable[[], None] = lambda: None) -> None:
    """Do steps one after the other.

    Args:
        day: how.
        steps: in order.
        after: called after each.
    """
    for step in steps:
        day.do(step)
        after()


def at_once(day: Day, steps: Sequence[Step], jobs: int) -> None:
    """Do steps that disturb each other in nothing but speed: those of a bundle in turn, `jobs` bundles at once."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(lambda chain: in_turn(day, chain), chains(steps)))
        except BaseException:
            day.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def own_command(work: Path) -> Command:
    """This script does its own steps."""
    return lambda step: [sys.executable, str(SCRIPT), "--work", str(work), "--step", json.dumps(step.to_json()), "--to"]
