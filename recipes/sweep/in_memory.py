"""A sweep of a model in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from ...exporter.core.errors import InputError
from ...exporter.pruning.torch_runner import evaluating
from ...exporter.pruning.vit import PrunedViT
from ..listener import Listener
from ..pipeline.in_memory import Images, recipe_of
from ..pools.choose import ALONE, Crew
from .result import Sweep
from .run import sweep
from .wanted import Wanted


def sweep_model(
    model: nn.Module,
    images: Images,
    out: str | os.PathLike[str] | None,
    wanted: Wanted,
    keywords: Mapping[str, Any],
    listener: Listener | None = None,
    crew: Crew = ALONE,
) -> Sweep:
    """See `vitrim.api.sweep`, of a model in memory.

    Raises:
        InputError: there are no images, or the model is pruned already.
    """
    if images is None:
        raise InputError("sweep: give images=, a folder of photos or a loader, which points are judged on")
    if isinstance(model, PrunedViT):
        raise InputError("sweep: this model is pruned already; give the model that it was made of")
    prune = {"target": {"flops_ratio": wanted.ratios[0]}}  # any plan makes the recipe whole; points have their own
    recipe, given = recipe_of(model, {"prune": prune, "images": images, **keywords}, listener)
    with evaluating(model):
        return sweep(recipe, out, wanted, crew=crew, listener=listener, given=given)
