"""The folder of a sweep: what it may be, and the files in it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ...exporter.core.errors import InputError
from ...exporter.core.files import atomic_write, explain_os_error
from ...exporter.pruning.checkpoints.hub import is_hub_name
from ...exporter.runtime.bundles.place import refuse_in_bundle
from ...exporter.runtime.outputs import refuse_over_inputs
from ..schema.load import SHIPPED
from ..schema.own_files import inputs_of
from ..schema.portable import portable_path
from ..schema.recipe import Recipe, named_files
from .result import JOURNAL, RESULT, Chosen, Row, Sweep

TABLE, PICTURE, RECIPES = "sweep.csv", "pareto.svg", "recipes"
_COLUMNS = (
    "method", "ratio", "precision", "gmacs", "agreement", "agreement_low", "agreement_high", "kl", "kl_low", "kl_high",
    "top1_dense", "top1_pruned", "speedup", "speedup_low", "speedup_high", "ms", "dense_ms", "overhead", "images",
    "front", "stopped", "refused",
)  # fmt: skip


def check_folder(folder: Path, recipe: Recipe) -> None:
    """Refuse a place that is neither free nor a sweep's.

    Raises:
        InputError: it holds something else, or what the recipe reads, or lies in a bundle.
    """
    refuse_in_bundle(folder)
    refuse_over_inputs(folder, inputs_of(recipe))
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(f"{folder} is a file or a link; name a folder for the sweep")
        content = min((path.name for path in folder.iterdir()), default=None) if folder.is_dir() else None
    except OSError as error:
        raise explain_os_error(error, folder) from error
    if content is not None and not os.path.lexists(folder / JOURNAL):
        raise InputError(f"{folder} exists and is no sweep (it holds {content}); name another folder")


def write_files(folder: Path, sweep: Sweep, recipes: Mapping[str, Recipe]) -> Sweep:
    """Write the result, the table, the picture, and a recipe for every constraint that a point holds.

    Args:
        folder: of the sweep.
        sweep: the result.
        recipes: by point's name, those that can be written: nothing in them was in memory.

    Returns:
        the result with the recipes' files.
    """
    chosen = []
    for one in sweep.chosen:
        recipe = None if one.point is None else recipes.get(one.point)
        if recipe is None:
            chosen.append(one)
            continue
        name = f"{RECIPES}/{one.constraint}-{one.bound:g}.yaml"
        atomic_write(folder / name, recipe_text(recipe, folder / RECIPES, sweep, one))
        chosen.append(replace(one, recipe=name))
    sweep = replace(sweep, chosen=tuple(chosen))
    sweep.write(folder / RESULT)
    atomic_write(folder / TABLE, table(sweep))
    if find_spec("markupsafe") is not None:
        from ..report.pareto import standalone

        atomic_write(folder / PICTURE, standalone(sweep))
    return sweep


def recipe_text(recipe: Recipe, folder: Path, sweep: Sweep, chosen: Chosen) -> str:
    """A point's recipe as YAML for a folder, with what was measured of it on top."""
    data: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    for section, _, key in named_files(data):
        section[key] = relative_path(section[key], folder)
    lines = [f"# {chosen_words(chosen)}: {chosen.point}"]
    if chosen.point is not None:
        lines += [f"# measured by vitrim sweep: {measured_words(sweep.point(chosen.point))}"]
    return "\n".join([*lines, yaml.safe_dump(data, sort_keys=False, allow_unicode=True)])


def relative_path(path: str, folder: Path) -> str:
    """A file's path from a folder; what comes with vitrim, or from a hub, has a name of its own."""
    own = portable_path(path, folder)
    if is_hub_name(path) or own.startswith(SHIPPED):
        return own
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()


def chosen_words(chosen: Chosen) -> str:
    """What a constraint asks for."""
    if chosen.constraint == "agreement":
        return f"the fastest that agrees with dense on {100 * chosen.bound:g} % of the images"
    return f"the most faithful that is {chosen.bound:g} times as fast as dense"


def measured_words(row: Row) -> str:
    """What was measured of a point."""
    found = []
    if row.answers is not None:
        low, high = row.answers.agreement_interval
        found.append(
            f"agreement {100 * row.answers.agreement:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of "
            f"{row.answers.images} images"
        )
    if row.speed is not None:
        low, high = row.speed.interval
        found.append(f"{row.speed.speedup:.2f} times as fast as dense ({low:.2f} to {high:.2f})")
    if row.gmacs is not None:
        found.append(f"{row.gmacs:.3f} GMACs")
    return ", ".join(found)


def table(sweep: Sweep) -> str:
    """Every point as CSV, with a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    on_front = set(sweep.on_front)
    for row in sweep.points:
        writer.writerow(["" if cell is None else cell for cell in _cells(row, row.name in on_front)])
    return text.getvalue()


def _cells(row: Row, front: bool) -> Iterator[object]:
    seen, speed = row.answers or row.look, row.speed
    yield from (row.method, row.ratio, row.precision, row.gmacs)
    if seen is None:
        yield from [None] * 8
    else:
        kl = seen.kl_interval or (None, None)
        yield from (seen.agreement, *seen.agreement_interval, seen.kl, *kl, seen.accuracy_dense, seen.accuracy_pruned)
    if speed is None:
        yield from [None] * 6
    else:
        yield from (speed.speedup, *speed.interval, speed.median, speed.dense, speed.overhead)
    yield from (None if seen is None else seen.images, int(front), row.stopped, row.refused)
