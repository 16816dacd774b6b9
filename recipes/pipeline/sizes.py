"""Further image sizes of an export: what of a recipe can be done again for another size, and the run for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...exporter.core.errors import InputError, VitrimError
from ...exporter.core.layout import size_name
from ...exporter.pruning.resize import Size, resized
from ..schema.recipe import Recipe
from ..stages.golden import check_ends, ends_of
from .open import open_sources, preprocess_of

if TYPE_CHECKING:
    from .walk import Run

# Of a recipe's `prune`, what is for one size alone, and what to give in its place.
_OF_ONE_SIZE = {
    "budget": "is a plan for one image size;",
    "given": "in memory, as `vitrim.prune` makes one, is a plan for one image size; export timm's model itself, and",
}
_OF_ONE_SIZE_IN_TARGET = {
    "gflops": "is the cost at one image size;",
    "latency_ms": "is a time at one image size;",
    "table": "is measured at one image size;",
}
_INSTEAD = "give prune.target.flops_ratio, keep_rates or a preset, which hold at every size"


def sizes_of(recipe: Recipe) -> list[Size]:
    """The further sizes that a recipe asks for."""
    return [(one, one) if isinstance(one, int) else (one[0], one[1]) for one in recipe.export.sizes]


def without_sizes(recipe: Recipe) -> Recipe:
    """The recipe of one size that every size of a recipe walks through the stages with."""
    return with_sizes(recipe, [])


def with_sizes(recipe: Recipe, sizes: list[Any]) -> Recipe:
    """A recipe with other `export.sizes`."""
    if recipe.export.sizes == sizes:
        return recipe
    export = recipe.export.model_copy(update={"sizes": sizes})
    return recipe.model_copy(update={"export": export}).within(recipe.folder, recipe.file)


def check_sizes(recipe: Recipe) -> None:
    """Refuse what a recipe of several sizes says for one of them alone.

    Raises:
        InputError: naming the key, and what to do.
    """
    if not recipe.export.sizes:
        return
    if recipe.slim is not None:
        raise InputError(
            "export.sizes: every size would be slimmed in its own way; slim once (`vitrim slim RECIPE -o "
            "slim.safetensors`), name that as model.checkpoint, and take slim out"
        )
    for name in ("images", "evaluate"):
        section = getattr(recipe, name)
        if section is not None and section.given:
            raise InputError(
                f"export.sizes: {name} in memory are of one size; give {name}.path, photos that fit every size"
            )
    prune: Any = recipe.prune
    holders = (("prune", prune, _OF_ONE_SIZE), ("prune.target", prune.target, _OF_ONE_SIZE_IN_TARGET))
    for path, holder, keys in holders:
        for key, why in keys.items():
            if holder is not None and getattr(holder, key):
                raise InputError(f"export.sizes: {path}.{key} {why} {_INSTEAD}")


def size_run(run: Run, size: Size) -> Run:
    """A run of the same recipe for images of another size, with nothing done; its images are opened for that size.

    Raises:
        InputError: the model cannot have the size, or the images do not fit it.
    """
    dense = resized(run.dense(), size)
    with of_size(size_name(size)):
        preprocess = preprocess_of(run.recipe, dense)
        check_ends(ends_of(run.recipe.export, preprocess), run.classes)
        sources = open_sources(run.recipe, preprocess, run.classes, run.given)
    opened = replace(run, size=size, preprocess=preprocess, sources=sources, _models={}, _contents={})
    return opened.of(run.recipe, run.target)


@contextlib.contextmanager
def of_size(name: str) -> Iterator[None]:
    """What goes wrong within says of which size it was."""
    try:
        yield
    except VitrimError as error:
        raise type(error)(f"images of {name}: {error}") from error
