"""An ONNX file and the name of its model as a recipe, which prunes and exports it like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...exporter.core.errors import InputError
from ..schema.keywords import export_keywords, prune_keywords
from ..schema.load import load_recipe, override, recipe_from
from ..schema.recipe import Recipe
from ..schema.sections.prune import PruneSection, TargetSection

# `target` is where the graph will run, as in an export.
_PRUNING = ({*PruneSection.model_fields} | {*TargetSection.model_fields}) - {"target"}
_NO_IMAGES = {"generator": "noise", "count": 64}


def recipe_for(
    source: str | os.PathLike[str],
    model: str | None,
    recipe: str | os.PathLike[str] | None,
    settings: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Recipe:
    """The recipe of an export of a file's model.

    Args:
        source: the ONNX file.
        model: name of the timm model that it is; None: the recipe's.
        recipe: whose model is replaced by the file's; None: one is made of the keywords.
        settings: as `load.override` takes them; they win.
        keywords: of an export and of pruning, such as `flops_ratio=0.65`; they win over the recipe.

    Raises:
        InputError: no such key, or nothing says how much to prune.
    """
    given = {key: value for key, value in keywords.items() if value is not None}
    pruning = {key: given.pop(key) for key in list(given) if key in _PRUNING}
    prune = prune_keywords(pruning.pop("method", None), pruning)
    sections = {**export_keywords(given), **({"prune": prune} if prune else {})}
    file = os.path.abspath(source)
    if recipe is None:
        if not {*sections} & {"prune", "slim"} or ("prune" in sections and not set(prune) - {"method", "parameters"}):
            raise InputError("how much is to be pruned? give --flops-ratio, such as 0.65, or a recipe by --recipe")
        data = {"images": _NO_IMAGES, **sections, "model": {"name": model, "onnx": file}}
        return recipe_from(override(data, settings), "optimize")
    own = [(f"{section}.{key}", value) for section, data in sections.items() for key, value in data.items()]
    named = [("model.name", model)] if model is not None else []
    return load_recipe(os.fspath(recipe), [*named, ("model.onnx", file), *own, *settings])
