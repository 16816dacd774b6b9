"""The model that an ONNX file was exported from: its weights found in the graph, and proven to answer as the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...exporter.core.errors import ParityError, UnsupportedError
from ...exporter.graph.opened import ANSWER, IMAGE, Opened, file_runner
from ...exporter.graph.opened import open_model as open_file
from ...exporter.graph.parameters import Part, parts_of
from ...exporter.graph.session import Session
from ...exporter.graph.verify import with_outputs
from ...exporter.pruning.load import create_model, image_size
from ...exporter.pruning.recover import first_difference
from ...exporter.pruning.recover import recover as fill
from ...exporter.pruning.torch_runner import evaluating
from ...exporter.runtime.runners import run_all, whole_batches
from ..schema.recipe import Recipe
from .open import NOTHING, Given, refuse_another_file
from .open import open_model as open_other

ATOL = 1e-4  # of a logit, in proportion where they are larger than 1
IMAGES, SEED = 4, 0


def open_model(recipe: Recipe, given: Given = NOTHING, note: Callable[[str], None] = lambda text: None) -> Any:
    """The recipe's model, recovered where an ONNX file holds its weights; see `open.open_model`.

    Raises:
        InputError, UnsupportedError, ParityError, EnvironmentLackError: see there, and `recovered`.
    """
    section = recipe.model
    if section.onnx is None:
        return open_other(recipe, given, note)
    assert section.name is not None  # only a checkpoint may come without one
    refuse_another_file("onnx", section.onnx, section.sha256)
    return recovered(section.onnx, section.name, section.args, note)


def recovered(
    path: str | os.PathLike[str],
    name: str,
    args: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Any:
    """A timm model with the weights of an ONNX file, which answers as the file does.

    Args:
        path: of the file.
        name: of the model; classes, image size and channels are the file's, unless `args` say them.
        args: further arguments of the timm model.
        note: hears how near the answers are.

    Raises:
        InputError: no such file, no ONNX, or not of one image.
        UnsupportedError: the file is not that model; the first tensor that does not fit is named.
        ParityError: the weights fit, but the answers differ; the first layer that does is named.
    """
    opened = open_file(path)
    if opened.shape[1] not in (1, 3, 4):
        raise UnsupportedError(f"{path}: the input is {list(opened.shape)}; timm's models have the channels first")
    model = _made(opened, name, dict(args or {}))
    where = f"{os.fspath(path)} as {name}"
    try:
        parts = parts_of(opened.folded, opened.weights)
        with evaluating(model):
            fill(model, parts, _tokens(opened, parts), image_size(model))
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from error
    with evaluating(model):
        note(f"{where}: weights recovered; {_hold(model, opened, parts, where)}")
    return model


def _made(opened: Opened, name: str, args: dict[str, Any]) -> Any:
    """The model with the file's classes, size and channels."""
    args = {"num_classes": opened.size, **args}
    model = create_model(name, args=args, random=SEED)
    channels, height, width = opened.shape[1:]
    wanted: dict[str, Any] = {}
    if "in_chans" not in args and image_size(model)[0] != channels:
        wanted["in_chans"] = channels
    if "img_size" not in args and tuple(image_size(model)[1:]) != (height, width):
        wanted["img_size"] = height if height == width else [height, width]
    return create_model(name, args={**args, **wanted}, random=SEED) if wanted else model


def _tokens(opened: Opened, parts: list[Part]) -> np.ndarray:
    """What the graph's first normalization reads of an image of zeros, [tokens, width]."""
    norm = next((part for part in parts if part.kind == "norm"), None)
    if norm is None:
        raise UnsupportedError("the file has no layer normalization; it is no Vision Transformer")
    found = _values(opened, [norm.reads], np.zeros(opened.shape, np.float32))[0][0]
    return found.reshape(-1, found.shape[-1])


def _values(opened: Opened, names: list[str], image: np.ndarray) -> list[np.ndarray]:
    session = Session(with_outputs(opened.folded, names), optimized=False, weights=opened.weights)
    found = session({IMAGE: image})
    return [found[name] for name in names]


def _hold(model: Any, opened: Opened, parts: list[Part], where: str) -> str:
    """The model's answers against the file's.

    Returns:
        the largest difference, in words.
    """
    batch = opened.shape[0]
    images = np.random.default_rng(SEED).standard_normal((whole_batches(IMAGES, batch), *opened.shape[1:]))
    images = images.astype(np.float32)
    theirs = run_all(file_runner(opened), images, batch)[ANSWER]
    with torch.inference_mode():
        ours = model(torch.from_numpy(images)).numpy()
    error = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    limit = ATOL * max(1.0, float(np.abs(theirs).max()))
    if error <= limit:
        return f"largest difference of {opened.output} {error:.2g} on {len(images)} random images"
    norms = [part for part in parts if part.kind == "norm"]
    some = images[:batch]
    first, layer, by = first_difference(
        model, torch.from_numpy(some), lambda: _values(opened, [part.reads for part in norms], some)
    )
    raise ParityError(
        f"{where}: the weights fit, but {ANSWER} differ by {error:.3g}, more than {limit:.1g}; first before {layer} "
        f"(node {norms[first].nodes[0]}), by {by:.2g} of what it reads"
    )
