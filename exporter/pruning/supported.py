"""Which of timm's models vitrim takes, and for what: asked of every model in the installed timm, without weights.

A model is made on PyTorch's meta device (shapes, no memory) and looked at as an export would; what refuses it says why.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch

from ..core.errors import InputError, UnsupportedError
from .shape import NO_CLASSIFIER, describe
from .units import refuse_slimming


@dataclass(frozen=True)
class Family:
    """The models of one timm module.

    Attributes:
        name: the module, such as `vision_transformer`.
        models: how many models it has.
        prunable: names of those whose tokens vitrim can prune.
        slimmable: names of those whose heads and neurons it can take out.
        headless: those of either that come without a classifier. Pruned, they give features; slimming needs a trained
            classifier (`num_classes`).
        refused: reasons why tokens of the others cannot be pruned, and how many each.
        unslimmable: reasons why the others cannot be slimmed, and how many each.
        example: a model that is refused for both; None where there is none.
    """

    name: str
    models: int
    prunable: tuple[str, ...]
    slimmable: tuple[str, ...]
    headless: tuple[str, ...]
    refused: dict[str, int]
    unslimmable: dict[str, int]
    example: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """Why a model's tokens cannot be pruned, and why it cannot be slimmed; None where it can."""

    tokens: str | None
    slimming: str | None


def ask(name: str, **args: Any) -> Answer:
    """What vitrim does with a model.

    Args:
        name: a timm model.
        args: timm's, such as `num_classes`.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=False, **args)
    except Exception as error:  # some models make numbers of their tensors, which meta tensors have not
        unseen = f"it cannot be made without memory ({type(error).__name__}), so it was not looked at"
        return Answer(unseen, unseen)
    slimming = refuse_slimming(model)
    if slimming is None and not getattr(model, "num_classes", 0):
        slimming = NO_CLASSIFIER
    try:
        describe(model)
    except UnsupportedError as error:
        return Answer(str(error).partition(": ")[2].partition("; vitrim prunes")[0], slimming)
    return Answer(None, slimming)


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
        slimmable: list[str] = []
        headless: list[str] = []
        refused: Counter[str] = Counter()
        unslimmable: Counter[str] = Counter()
        example = None
        for name in names:
            answer = ask(name)
            done += 1
            if progress:
                progress(done, total)
            if NO_CLASSIFIER in (answer.tokens or "", answer.slimming):
                answer = ask(name, num_classes=10)
                headless += [name] if None in (answer.tokens, answer.slimming) else []
            for reason, taken, reasons in (
                (answer.tokens, prunable, refused),
                (answer.slimming, slimmable, unslimmable),
            ):
                if reason is None:
                    taken.append(name)
                else:
                    reasons[reason] += 1
            if answer.tokens is not None and answer.slimming is not None:
                example = example or name
        found = (tuple(prunable), tuple(slimmable), tuple(headless), dict(refused), dict(unslimmable))
        families.append(Family(module, len(names), *found, example))
    return families
