"""Which of timm's models vitrim takes: asked of every model in the installed timm, without weights.

A model is made on PyTorch's meta device (shapes, no memory) and described as an export would; what refuses it says why.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch

from .errors import InputError, UnsupportedError
from .models import describe


@dataclass(frozen=True)
class Family:
    """The models of one timm module.

    Attributes:
        name: the module, such as `vision_transformer`.
        models: how many models it has.
        prunable: names of those whose tokens vitrim can prune.
        headless: those of them that come without a classifier and need a trained one (`num_classes`).
        refused: reasons why the others are refused, and how many each.
        example: a refused model, for its reason; None where there is none.
    """

    name: str
    models: int
    prunable: tuple[str, ...]
    headless: tuple[str, ...]
    refused: dict[str, int]
    example: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def why_not(name: str, **args: Any) -> str | None:
    """Why vitrim does not prune a model's tokens; None where it does.

    Args:
        name: a timm model.
        args: timm's, such as `num_classes`.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=False, **args)
    except Exception as error:  # some models make numbers of their tensors, which meta tensors have not
        return f"it cannot be made without memory ({type(error).__name__}), so it was not looked at"
    try:
        describe(model)
    except UnsupportedError as error:
        return str(error).partition(": ")[2].partition("; vitrim prunes")[0]
    return None


def survey(wanted: str = "", progress: Callable[[int, int], None] | None = None) -> list[Family]:
    """Ask every model of every family whose name holds `wanted`.

    Args:
        wanted: part of a family's or a model's name; empty takes all, which needs minutes.
        progress: called with (models done, models).

    Raises:
        InputError: no family and no model has such a name.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
    chosen: dict[str, list[str]] = {}
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        names = names if wanted in module else [name for name in names if wanted in name]
        if names:
            chosen[module] = names
    if not chosen:
        raise InputError(f"timm {timm.__version__} has no family and no model with {wanted!r} in its name")
    total, done, families = sum(map(len, chosen.values())), 0, []
    for module, names in chosen.items():
        prunable: list[str] = []
        headless: list[str] = []
        refused: dict[str, int] = {}
        example = None
        for name in names:
            reason = why_not(name)
            done += 1
            if progress:
                progress(done, total)
            if reason is not None and "no classifier" in reason:
                reason = why_not(name, num_classes=10)
                headless += [name] if reason is None else []
            if reason is None:
                prunable.append(name)
                continue
            refused[reason] = refused.get(reason, 0) + 1
            example = example or name
        families.append(Family(module, len(names), tuple(prunable), tuple(headless), refused, example))
    return families
