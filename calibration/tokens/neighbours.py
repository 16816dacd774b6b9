"""Plans beside a plan, at the same cost: a stage removes more and a later one less, moves, splits or joins another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.base import Method
from ...exporter.pruning.methods.options import check_budget, parameters_of
from ...exporter.pruning.plan import StagePlan
from .cost import Price
from .rules import Rule
from .solve import builder, is_legal, removable

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

Kind = Literal["trade", "shift", "split", "join", "share", "parameter"]
STAGES = 4  # that a plan may have at most, or as many as the first one: each adds nodes, which cost time
SHARE, FACTOR = 0.25, 4 / 3  # by which a share of similarity, and a parameter, change


@dataclass(frozen=True)
class Plan:
    """A plan as the search changes it.

    Attributes:
        stages: with their `patches`, in order; a final one that keeps no patch is left out.
        parameters: values of the method's `searchable` parameters, in that order.
    """

    stages: tuple[StagePlan, ...]
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Move:
    """One change of a plan.

    Attributes:
        kind: what changes.
        index: of the stage, or of the parameter.
        by: which way: 1 or -1.
        other: the stage that makes up for it in a trade.
    """

    kind: Kind
    index: int
    by: int = 1
    other: int = 0


@dataclass(frozen=True)
class Frame:
    """What all plans of a search have in common.

    Attributes:
        shape: the model.
        like: the first plan: its method, parameters and rounds of scoring, and whether the last block drops all
            patches.
        limit: cost that no plan may pass.
        multiple: of which the tokens after every stage that chooses patches are a multiple.
        price: what plans cost; None: multiply-accumulates.
    """

    shape: ViTShape
    like: Budget
    limit: float
    multiple: int = 1
    price: Price | None = None

    @property
    def method(self) -> Method:
        """Of all plans."""
        return get_method(self.like.method)

    @property
    def patches(self) -> int:
        """Before the first stage."""
        return self.shape.tokens - self.shape.prefix_tokens

    @cached_property
    def final(self) -> bool:
        """Whether the last block drops all patches."""
        return self.like.stages[-1].after == self.like.prefix_tokens

    @property
    def room(self) -> int:
        """Blocks that a stage may sit in, from the first one on."""
        return self.shape.depth - (1 if self.final else 0)

    @cached_property
    def most_stages(self) -> int:
        """See `STAGES`."""
        return max(STAGES, len(self.like.choosing))

    @cached_property
    def iterations(self) -> int | None:
        """Rounds of scoring of every stage, where the method has them."""
        return next((row.options["iterations"] for row in self.like.choosing if "iterations" in row.options), None)

    @cached_property
    def searched(self) -> tuple[float, ...]:
        """Values of the method's `searchable` parameters in the first plan."""
        parameters = parameters_of(self.like)
        return tuple(getattr(parameters, name) for name in self.method.searchable)

    def first(self) -> Plan:
        """The plan of `like`."""
        prefix, method = self.like.prefix_tokens, self.method
        stages = [
            StagePlan(
                row.block,
                patches=row.after - prefix,
                similar=int(row.options.get("similar", 0)) / (row.before - row.after) if method.by_similarity else 0.0,
            )
            for row in self.like.choosing
        ]
        return Plan(tuple(stages), self.searched)

    def rule(self, plan: Plan) -> Rule:
        """The plan's stages as a rule, which does not say how many patches stay."""
        return Rule(tuple(replace(stage, patches=None) for stage in plan.stages), self.iterations, self.final)

    def budget(self, plan: Plan) -> Budget:
        """The plan as a budget."""
        build, _ = builder(self.shape, self.like.method, self.parameters_of(plan), self.rule(plan))
        return build(kept_of(plan))

    def settled(self, plan: Plan, index: int) -> Plan | None:
        """The plan with stage `index` removing as little as the cost allows, and all others as much as they do.

        Returns:
            None where no size of that stage meets the cost, or the method cannot do what it takes.
        """
        _, cost = builder(self.shape, self.like.method, self.parameters_of(plan), self.rule(plan), self.price)
        kept, most = kept_of(plan), removable(self.method, self.shape.prefix_tokens, self.like.parameters)
        before = kept[index - 1] if index else self.patches

        def moved(steps: int) -> list[int]:
            return [*kept[:index], *(count + steps * self.multiple for count in kept[index:])]

        low, high = -((kept[-1] - 1) // self.multiple) - 1, (before - kept[index]) // self.multiple
        while low < high:  # `low` is too few patches to be legal, or fits
            middle = (low + high + 1) // 2
            fits = min(moved(middle)) < 1 or cost(moved(middle)) <= self.limit
            low, high = (middle, high) if fits else (low, middle - 1)
        found = moved(low)
        if not is_legal(found, self.patches, most) or cost(found) > self.limit:
            return None
        stages = [replace(stage, patches=count) for stage, count in zip(plan.stages, found, strict=True)]
        steps = zip([self.patches, *found], stages, strict=False)
        left = tuple(stage for count, stage in steps if stage.patches != count)
        return replace(plan, stages=left) if left else None

    def apply(self, move: Move, plan: Plan, step: int) -> Plan | None:
        """What a move makes of a plan at the same cost; None where it cannot be made.

        Args:
            step: patches that a trade moves.
        """
        found = _MOVES[move.kind](self, move, plan, step)
        if found is None or len(found[0].stages) > self.most_stages:
            return None
        changed, index = found
        try:
            settled = self.settled(changed, index)
            if settled is not None:
                check_budget(self.method, self.budget(settled))
        except InputError:  # what a method cannot do is no plan
            return None
        return None if settled == plan else settled

    def parameters_of(self, plan: Plan) -> dict[str, Any]:
        """The method's parameters, those that the plan changes as it has them."""
        values = zip(self.method.searchable, self.searched, plan.parameters, strict=True)
        return self.like.parameters | {name: value for name, first, value in values if value != first}


def kept_of(plan: Plan) -> list[int]:
    """Patches after each stage."""
    return [stage.patches for stage in plan.stages if stage.patches is not None]


def moves(plan: Plan, frame: Frame) -> list[Move]:
    """Every change of a plan, those of late stages first: they take the least to judge."""
    count, found = len(plan.stages), list[Move]()
    for index in reversed(range(count)):
        partners = sorted({index + 1, index + 2, count - 1} & set(range(index + 1, count)))
        for by in (1, -1):
            found += [Move("trade", index, by, other) for other in partners]
            found += [Move("shift", index, by), Move("split", index, by)]
            if frame.method.by_similarity:
                found.append(Move("share", index, by))
        if index + 1 < count:
            found += [Move("join", index, by) for by in (1, -1)]
    return found + [Move("parameter", index, by) for index in range(len(plan.parameters)) for by in (1, -1)]


Changed = tuple[Plan, int] | None  # a plan, and the stage that makes up for the cost


def _with(plan: Plan, stages: Sequence[StagePlan]) -> Plan:
    return replace(plan, stages=tuple(stages))


def _trade(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """A stage keeps more (1) or fewer (-1) patches, and a later one makes up for it."""
    if move.other >= len(plan.stages):
        return None
    between = range(move.index, move.other)
    stages = [
        replace(stage, patches=(stage.patches or 0) + move.by * step) if index in between else stage
        for index, stage in enumerate(plan.stages)
    ]
    return _with(plan, stages), move.other


def _shift(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """A stage goes to the next (1) or the last (-1) block."""
    if move.index >= len(plan.stages):
        return None
    block = plan.stages[move.index].block + move.by
    if block not in _free(frame, plan):
        return None
    moved = replace(plan.stages[move.index], block=block)
    return _with(plan, [*plan.stages[: move.index], moved, *plan.stages[move.index + 1 :]]), move.index


def _split(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """Half of what a stage removes goes at the next (1) or the last (-1) block."""
    if move.index >= len(plan.stages):
        return None
    whole = plan.stages[move.index]
    before = kept_of(plan)[move.index - 1] if move.index else frame.patches
    half = (before - (whole.patches or 0)) // 2 // frame.multiple * frame.multiple
    if half == 0 or whole.block + move.by not in _free(frame, plan):
        return None
    blocks = sorted((whole.block, whole.block + move.by))
    parts = [replace(whole, block=blocks[0], patches=(whole.patches or 0) + half), replace(whole, block=blocks[1])]
    return _with(plan, [*plan.stages[: move.index], *parts, *plan.stages[move.index + 1 :]]), move.index + 1


def _join(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """A stage and the next one become one, where the later (1) or the earlier (-1) of them is."""
    if move.index + 1 >= len(plan.stages):
        return None
    early, late = plan.stages[move.index : move.index + 2]
    joined = late if move.by > 0 else replace(early, patches=late.patches)
    return _with(plan, [*plan.stages[: move.index], joined, *plan.stages[move.index + 2 :]]), move.index


def _share(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """More or less of what a stage removes goes by similarity."""
    if move.index >= len(plan.stages):
        return None
    stage = plan.stages[move.index]
    changed = replace(stage, similar=min(1.0, max(0.0, stage.similar + move.by * SHARE)))
    return _with(plan, [*plan.stages[: move.index], changed, *plan.stages[move.index + 1 :]]), move.index


def _parameter(frame: Frame, move: Move, plan: Plan, step: int) -> Changed:
    """A parameter of the method grows or shrinks."""
    values = list(plan.parameters)
    values[move.index] = float(f"{values[move.index] * FACTOR**move.by:.4g}")
    return replace(plan, parameters=tuple(values)), len(plan.stages) - 1


def _free(frame: Frame, plan: Plan) -> set[int]:
    """Blocks that a stage may move to."""
    return set(range(frame.room)) - {stage.block for stage in plan.stages}


_MOVES: Mapping[Kind, Callable[[Frame, Move, Plan, int], Changed]] = {
    "trade": _trade,
    "shift": _shift,
    "split": _split,
    "join": _join,
    "share": _share,
    "parameter": _parameter,
}
