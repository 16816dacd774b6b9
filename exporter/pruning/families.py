"""What is known of timm's models by family: which of them vitrim takes, and for what. Plain data, without timm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Why a model's tokens cannot be pruned, and why it cannot be slimmed; None where it can.

    Attributes:
        headless: it came without a classifier, and was asked with one.
    """

    tokens: str | None
    slimming: str | None
    headless: bool = False


@dataclass(frozen=True)
class Model:
    """One of timm's models.

    Attributes:
        pretrained: whether timm has weights for it.
        answer: None where nobody has asked yet.
    """

    name: str
    pretrained: bool
    answer: Answer | None = None


Known = dict[str, list[Model]]  # by timm's module, such as `vision_transformer`


@dataclass(frozen=True)
class Family:
    """The models of one timm module.

    Attributes:
        name: the module, such as `vision_transformer`.
        models: how many models were asked.
        pretrained: how many of those timm has weights for.
        prunable: names of those whose tokens vitrim can prune.
        slimmable: names of those whose heads or neurons it can take out.
        headless: those of either that come without a classifier. Pruned, they give features; slimming needs a trained
            classifier (`num_classes`).
        refused: reasons why tokens of the others cannot be pruned, and how many each.
        unslimmable: reasons why the others cannot be slimmed, and how many each.
        example: a model that is refused for both; None where there is none.
    """

    name: str
    models: int
    pretrained: int
    prunable: tuple[str, ...]
    slimmable: tuple[str, ...]
    headless: tuple[str, ...]
    refused: dict[str, int]
    unslimmable: dict[str, int]
    example: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def choose(known: Mapping[str, Sequence[Model]], wanted: str = "") -> Known:
    """The models that are meant.

    Args:
        known: all of timm's.
        wanted: part of a family's or a model's name, which takes all of those; empty takes those with weights.
    """
    chosen = {}
    for module, models in known.items():
        named = wanted and wanted in module
        found = [one for one in models if (named or wanted in one.name if wanted else one.pretrained)]
        if found:
            chosen[module] = found
    return chosen


def family_of(module: str, models: Sequence[Model]) -> Family:
    """What was answered for the models of one module; all of them have been asked."""
    answers = {one.name: one.answer for one in models if one.answer is not None}
    taken = [name for name, one in answers.items() if None in (one.tokens, one.slimming)]
    return Family(
        name=module,
        models=len(models),
        pretrained=sum(one.pretrained for one in models),
        prunable=tuple(name for name, one in answers.items() if one.tokens is None),
        slimmable=tuple(name for name, one in answers.items() if one.slimming is None),
        headless=tuple(name for name in taken if answers[name].headless),
        refused=dict(Counter(one.tokens for one in answers.values() if one.tokens is not None)),
        unslimmable=dict(Counter(one.slimming for one in answers.values() if one.slimming is not None)),
        example=next((name for name in answers if name not in taken), None),
    )


def totals(families: Sequence[Family]) -> dict[str, int]:
    """Over all families: `models`, those of them with weights (`pretrained`), and how many each vitrim takes for what.

    `prunable` and `slimmable` each hold those that are `both`; `neither` are the rest.
    """
    both = sum(len({*one.prunable} & {*one.slimmable}) for one in families)
    prunable, slimmable = sum(len(one.prunable) for one in families), sum(len(one.slimmable) for one in families)
    models = sum(one.models for one in families)
    return {
        "models": models,
        "pretrained": sum(one.pretrained for one in families),
        "prunable": prunable,
        "slimmable": slimmable,
        "both": both,
        "neither": models - prunable - slimmable + both,
    }
