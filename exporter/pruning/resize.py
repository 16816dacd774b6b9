"""A timm model for images of another size."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from ..core.errors import InputError
from ..core.layout import size_name
from .shape import image_size, model_name

Size = tuple[int, int]  # height and width in pixels


def resized(model: Any, size: Size) -> Any:
    """A timm model for images of another size, as timm makes it: positions resampled, all other weights the same ones.

    Args:
        model: it stays as it is.
        size: height and width.

    Raises:
        InputError: it is the model's own size, no whole number of patches, or timm cannot change the model's size.
    """
    name, told = size_name(size), model_name(model)
    if image_size(model)[1:] == size:
        raise InputError(f"export.sizes: {name} is the own size of {told}, which is exported anyway; take it out")
    if not hasattr(model, "set_input_size"):
        raise InputError(f"export.sizes: timm cannot change the image size of {told}; export a bundle for each size")
    height, width = model.patch_embed.patch_size
    if size[0] % height or size[1] % width:
        raise InputError(f"export.sizes: {name} is no whole number of patches of {height}x{width}; give multiples")
    other = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm's own resampling
            other.set_input_size(img_size=size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"export.sizes: timm cannot make {told} for {name}: {reason}; take that size out") from error
    return other.eval()
