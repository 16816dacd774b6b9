"""What a bundle may say of the machine that made it: nothing. Recipes and commands without its paths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...exporter.core import layout
from ...exporter.pruning.checkpoints.hub import digest, is_hub_name
from .load import HERE, SHIPPED
from .recipe import Recipe, named_files

# What a recipe names and a bundle carries, under the bundle's own names.
_CARRIED = {("prune", "budget"): layout.BUDGET, ("slim", "widths"): layout.WIDTHS}


def portable_path(path: str, folder: Path) -> str:
    """A path that means the same on another machine.

    Args:
        path: absolute, or relative to the folder.
        folder: of the recipe.

    Returns:
        `shipped:NAME` of what comes with vitrim, the path from the folder of what lies in it, else the bare name: a
        file of that name then has to lie beside the recipe.
    """
    if is_hub_name(path):
        return path
    whole, own = Path(os.path.abspath(folder / path)), Path(os.path.abspath(folder))
    if whole.is_relative_to(HERE) and whole.is_file():
        return SHIPPED + whole.relative_to(HERE).as_posix()
    return whole.relative_to(own).as_posix() if whole.is_relative_to(own) and whole != own else whole.name


def portable(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data for another machine: portable paths, and the hash of what holds its weights."""
    data = recipe.model_dump(mode="json")
    if not recipe.export.sizes:
        del data["export"]["sizes"]  # a bundle of one size says nothing of sizes
    if recipe.prune is not None and recipe.prune.given:
        data["prune"] |= {"given": False, "budget": _CARRIED["prune", "budget"]}
    for section, path, key in named_files(data):
        file = section[key]
        section[key] = _CARRIED.get((path, key)) or portable_path(file, recipe.folder)
        if path == "model" and key in ("checkpoint", "onnx") and not section["sha256"]:
            section["sha256"] = digest(file)
    return data


def dump_recipe(recipe: Recipe | Mapping[str, Any]) -> str:
    """The recipe as YAML that runs on another machine, every default spelled out.

    Args:
        recipe: it, or what `portable` made of it, which reads the whole checkpoint.
    """
    data = portable(recipe) if isinstance(recipe, Recipe) else dict(recipe)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def portable_command(command: Sequence[str]) -> list[str]:
    """A command line whose absolute paths are cut to their last part, also behind `=`."""
    return [_cut(word) for word in command]


def _cut(word: str) -> str:
    head, equals, tail = word.rpartition("=")
    return head + equals + (Path(tail).name if os.path.isabs(tail) else tail)
