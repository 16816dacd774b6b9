"""Which of timm's models vitrim takes, and for what: asked of the installed timm, without weights.

A model is made on PyTorch's meta device (shapes, no memory) and looked at as an export would; what refuses it says why.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from typing import Any

import timm
import torch

from .families import Answer, Known, Model
from .shape import NO_CLASSIFIER, refuse_pruning
from .units import refuse_slimming


def ask(name: str, **args: Any) -> Answer:
    """What vitrim does with a model.

    Args:
        name: a timm model.
        args: timm's, such as `num_classes`.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
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
    return Answer(refuse_pruning(model), slimming)


def ask_with_classifier(name: str) -> Answer:
    """The same, of a model that comes without a classifier with one."""
    answer = ask(name)
    if NO_CLASSIFIER not in (answer.tokens or "", answer.slimming):
        return answer
    return replace(ask(name, num_classes=10), headless=True)


def listing() -> Known:
    """All of timm's models by module; none is asked yet."""
    pretrained = {name.partition(".")[0] for name in timm.list_pretrained()}
    return {
        module: [Model(name, name in pretrained) for name in timm.list_models(module=module)]
        for module in timm.list_modules()
    }
