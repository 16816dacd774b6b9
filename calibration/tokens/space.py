"""Plans as numbers, so that any optimizer can propose them: stages, their blocks, weights and shares, parameters.

The numbers say where stages sit and how they share what goes; the solver then finds the sizes that meet the cost. So
every plan of a search costs the same, and nearly all numbers are a plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods.options import check_budget
from ...exporter.pruning.plan import StagePlan
from .neighbours import FACTOR, SHARE, Frame, Plan, kept_of
from .rules import Rule
from .solve import from_target

Values = Mapping[str, float]
STAGES = "stages"
LIGHTEST = 0.02  # weight of a stage beside the heaviest, which has 1
AROUND = 4.0  # times that a parameter is scaled up or down at most
CHANGE = 0.3  # by which the logarithm of a weight changes, standard deviation


class Proposes(Protocol):
    """An optimizer's trial."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number between two bounds, both allowed."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between two bounds, both allowed."""


def propose(trial: Proposes, frame: Frame) -> dict[str, float]:
    """Ask an optimizer for the numbers of a plan."""
    count = trial.suggest_int(STAGES, 1, _most(frame))
    found: dict[str, float] = {STAGES: count}
    for index in range(count):
        for name, bounds in _of_stage(index, frame).items():
            low, high, kind = bounds
            if kind == "int":
                found[name] = trial.suggest_int(name, int(low), int(high))
            else:
                found[name] = trial.suggest_float(name, low, high, log=kind == "log")
    for name, (low, high) in _of_parameters(frame).items():
        found[name] = trial.suggest_float(name, low, high, log=True)
    return found


def _most(frame: Frame) -> int:
    """Stages of a plan at the most."""
    return min(frame.most_stages, frame.room)


def _of_stage(index: int, frame: Frame) -> dict[str, tuple[float, float, str]]:
    """By name, bounds and kind of the numbers of a stage."""
    names: dict[str, tuple[float, float, str]] = {
        f"block {index}": (0, frame.room - 1, "int"),
        f"weight {index}": (LIGHTEST, 1.0, "log"),
    }
    return names | ({f"similar {index}": (0.0, 1.0, "float")} if frame.method.by_similarity else {})


def _of_parameters(frame: Frame) -> dict[str, tuple[float, float]]:
    """By name, bounds of the parameters that can be scaled."""
    named = zip(frame.method.searchable, frame.searched, strict=True)
    return {f"parameter {name}": (value / AROUND, value * AROUND) for name, value in named if value > 0}


def first_values(frame: Frame) -> dict[str, float]:
    """The numbers of the first plan, as nearly as they say it."""
    plan = frame.first()
    kept = kept_of(plan)
    before = [frame.patches, *kept[:-1]]
    if frame.method.placement.sized_by == "counts":
        weights = [float(one - other) for one, other in zip(before, kept, strict=True)]
    else:
        weights = [math.log(one / other) for one, other in zip(before, kept, strict=True)]
    found: dict[str, float] = {STAGES: len(plan.stages)}
    for index, stage in enumerate(plan.stages):
        found[f"block {index}"] = stage.block
        found[f"weight {index}"] = max(LIGHTEST, weights[index] / max(weights))
        if frame.method.by_similarity:
            found[f"similar {index}"] = min(1.0, stage.similar)
    for name, (low, _) in _of_parameters(frame).items():
        found[name] = low * AROUND
    return found


def budget_of(values: Values, frame: Frame) -> Budget | None:
    """The plan that numbers say, at the cost of all; None where there is none.

    Stages that share a block go to the next free one, and all go to earlier blocks until the cost can be met.
    """
    stages = sorted((_stage(values, index) for index in range(int(values[STAGES]))), key=lambda one: one.block)
    blocks = _apart([stage.block for stage in stages], frame.room)
    named = [f"parameter {name}" for name in frame.method.searchable]
    parameters = tuple(values.get(name, first) for name, first in zip(named, frame.searched, strict=True))
    options = frame.parameters_of(Plan((), parameters))
    while True:
        placed = tuple(replace(stage, block=block) for stage, block in zip(stages, blocks, strict=True))
        rule = Rule(placed, frame.iterations, frame.final)
        with suppress(InputError):  # out of reach, or what the method cannot do
            return _solved(rule, options, frame)
        earlier = [max(index, block - 1) for index, block in enumerate(blocks)]
        if earlier == blocks:
            return None
        blocks = earlier


def _solved(rule: Rule, parameters: Mapping[str, Any], frame: Frame) -> Budget | None:
    """The rule's plan at the cost; None where it is not in the search's multiples, or is no pruning."""
    multiple = frame.multiple
    found = from_target(frame.shape, frame.like.method, parameters, frame.limit, rule, multiple, frame.price)
    check_budget(frame.method, found)
    return found if found.choosing and found.statistics.get("multiple", 1) == multiple else None


def _stage(values: Values, index: int) -> StagePlan:
    similar = values.get(f"similar {index}", 0.0)
    return StagePlan(int(values[f"block {index}"]), weight=values[f"weight {index}"], similar=similar)


def _apart(blocks: list[int], room: int) -> list[int]:
    """Sorted blocks without repetition, each moved as little as may be, within `room`."""
    found: list[int] = []
    for block in blocks:
        found.append(max(block, found[-1] + 1) if found else block)
    for index in reversed(range(len(found))):
        found[index] = min(found[index], room - len(found) + index)
    return found


def changed(values: Values, frame: Frame, generator: np.random.Generator) -> dict[str, float]:
    """Numbers near others: one or two of them changed a little, or a stage more or less."""
    found = dict(values)
    for _ in range(int(generator.integers(1, 3))):
        names = sorted(found)
        _change(found, names[int(generator.integers(len(names)))], frame, generator)
    return found


def _change(found: dict[str, float], name: str, frame: Frame, generator: np.random.Generator) -> None:
    way = 1 if generator.random() < 0.5 else -1
    kind, _, which = name.partition(" ")
    if kind == STAGES:
        _add_or_drop(found, way, frame)
    elif kind == "block":
        found[name] = min(max(int(found[name]) + way, 0), frame.room - 1)
    elif kind == "weight":
        scaled = found[name] * math.exp(CHANGE * generator.standard_normal())
        found[name] = min(max(scaled, LIGHTEST), 1.0)
    elif kind == "similar":
        found[name] = min(max(found[name] + way * SHARE * generator.random(), 0.0), 1.0)
    else:
        low, high = _of_parameters(frame)[f"{kind} {which}"]
        found[name] = min(max(found[name] * FACTOR**way, low), high)


def _add_or_drop(found: dict[str, float], way: int, frame: Frame) -> None:
    """One stage more, like the last one, behind it; or the last one gone."""
    count = int(found[STAGES])
    if not 1 <= count + way <= _most(frame):
        return
    found[STAGES] = count + way
    for name, (_, high, kind) in _of_stage(max(count, count + way) - 1, frame).items():
        if way < 0:
            del found[name]
        else:
            last = found[f"{name.partition(' ')[0]} {count - 1}"]
            found[name] = min(int(last) + 1, int(high)) if kind == "int" else last
