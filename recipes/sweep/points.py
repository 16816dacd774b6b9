"""The points of a sweep: which there are, and the recipe of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from ...exporter.core.errors import InputError
from ...exporter.core.targets import PRECISIONS, Precision, Target, group_of
from ...exporter.pruning.methods import DEFAULT, FLOOR, METHODS, get_method
from ..pipeline.auto import Candidate
from ..schema.recipe import Recipe
from ..schema.sections.prune import PruneSection
from ..stages.precision import check_precision
from ..stages.stage import plain_value
from .wanted import Wanted

_FOR_ALL = ("multiple", "final", "search")  # of a recipe's `prune`, what is not its own method's alone


@dataclass(frozen=True)
class Point:
    """A method at a budget in a precision."""

    method: str
    ratio: float
    precision: str

    def __str__(self) -> str:
        return f"{self.method} at {self.ratio:g} in {self.precision}"


def target_of(recipe: Recipe) -> Target:
    """The target of a sweep.

    Raises:
        InputError: the recipe names several: speeds over different dense graphs cannot be held against each other.
    """
    targets = group_of(recipe.export.target)
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise InputError(
            f"a sweep is of one target, and {recipe.export.target} is several ({names}); name one, such as "
            f"--set export.target={targets[0].name}"
        )
    return targets[0]


def grid(recipe: Recipe, wanted: Wanted) -> list[Point]:
    """Every point, those in the precision nearest to float32 first.

    Raises:
        InputError: there is no such method, or the target has no such precision.
    """
    target = target_of(recipe)
    methods = [get_method(name).name for name in wanted.methods or [name for name in METHODS if name != FLOOR]]
    names = wanted.precisions or (recipe.precision.name,)
    if "auto" in names:
        names = target.precisions
    unknown = next((name for name in names if name not in PRECISIONS), None)
    if unknown is not None:
        raise InputError(f"there is no precision {unknown!r} (there are {', '.join(PRECISIONS)})")
    for name in names:
        check_precision(recipe.precision.model_copy(update={"name": name}), target)
    return in_order({Point(method, ratio, name) for name in names for method in methods for ratio in wanted.ratios})


def in_order(points: Iterable[Point]) -> list[Point]:
    """Points by precision, the one nearest to float32 first, then method and ratio."""
    methods = list(METHODS)
    return sorted(
        points,
        key=lambda one: (
            PRECISIONS.index(cast("Precision", one.precision)),
            methods.index(one.method) if one.method in METHODS else len(methods),
            one.ratio,
        ),
    )


def recipe_for(base: Recipe, point: Point) -> Recipe:
    """A point's own recipe; a method that is the base's keeps its parameters and stages."""
    own: dict[str, Any] = {}
    if base.prune is not None:
        given = base.prune.model_dump(mode="json", exclude_unset=True)
        same = point.method == (base.prune.method or DEFAULT) and base.prune.preset is None
        own = {key: value for key, value in given.items() if same or key in _FOR_ALL}
        own = {key: value for key, value in own.items() if key not in (*PruneSection.ways, "method")}
    section = PruneSection.model_validate(
        {"method": point.method, "target": {"flops_ratio": point.ratio}, **own},
    )
    chosen = base.model_copy(update={"prune": section}).within(base.folder, base.file)
    if point.precision == "fp32":
        plain = chosen.precision.model_copy(update={"name": "fp32"})
        return chosen.model_copy(update={"precision": plain}).within(base.folder, base.file)
    return Candidate(target_of(base), cast("Precision", point.precision)).recipe(chosen)


def shared_by_all(base: Recipe) -> dict[str, Any]:
    """What of a recipe every point of a sweep depends on, as plain data; files are their hashes."""
    sections = ("slim", "export", "precision", "parity", "bench", "prune")
    found = {name: plain_value(base, name) for name in sections}
    found["precision"].pop("name")
    if found["prune"] is not None:
        found["prune"] = {key: value for key, value in found["prune"].items() if key not in PruneSection.ways}
    return found


def layers(points: list[Point], costs: dict[Point, tuple[float, float]]) -> Iterator[Point]:
    """Points in an order in which those that come early stop most of the others: front after front, cheapest first.

    Args:
        points: to be ordered.
        costs: of each, two figures that are better the lower they are, such as GMACs and divergence.
    """
    left = list(points)
    while left:
        front = [one for one in left if not any(_beats(costs[other], costs[one]) for other in left)]
        yield from sorted(front, key=lambda one: costs[one])
        left = [one for one in left if one not in front]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]
