"""The dense model run once over the images: how a method judges every patch, per image and block.

Scores are streamed to a memory-mapped file, so memory does not grow with the number of images.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...exporter.core.errors import InputError
from ...exporter.core.files import explain_os_error
from ...exporter.pruning.block import embed, look, mix, mlp, places_of, project
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.evidence import Evidence
from ...exporter.pruning.methods.options import parse_parameters
from ...exporter.pruning.shape import describe
from ..images.reading import batches
from ..images.sources import ImageSource


@dataclass(frozen=True)
class Decisions:
    """What a method thinks of every patch of every image.

    Attributes:
        importance: [images, blocks, patches] float32, memory-mapped; every row sums to 1.
        notes: by name, [blocks] means over images of what else the method reports.
        images: how many images were seen.
    """

    importance: np.ndarray
    notes: dict[str, np.ndarray]

    @property
    def images(self) -> int:
        """How many images were seen."""
        return self.importance.shape[0]


@torch.inference_mode()
def gather(
    model: Any,
    source: ImageSource,
    method: str,
    parameters: dict[str, object],
    path: str | os.PathLike[str],
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Decisions:
    """Run the dense model over all images and score every patch after every block's attention.

    Args:
        model: a supported timm model in eval mode.
        source: preprocessed images.
        method: a method that has scores.
        parameters: its parameters.
        path: where the scores go, a .npy of images * blocks * patches * 4 bytes.
        batch: images per forward pass; bounds the memory, as one block's attention is held at a time.
        progress: called with (images done, images).

    Raises:
        InputError: the method has no scores, or an image cannot be read.
        EnvironmentLackError: the file cannot be written.
    """
    shape = describe(model)
    judge = get_method(method)
    if not judge.has_scores:
        raise InputError(f"prune.method {method} has no scores to calibrate; give keep_rates, a preset or a target")
    settings = parse_parameters(judge, parameters, "prune.parameters")
    patches = shape.tokens - shape.prefix_tokens
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        importance: np.ndarray = np.lib.format.open_memmap(
            os.fspath(path), mode="w+", dtype=np.float32, shape=(len(source), shape.depth, patches)
        )
    except OSError as error:
        raise explain_os_error(error, path) from error
    sums: dict[str, np.ndarray] = {}
    places = places_of(model)
    done = 0
    for images in batches(source, batch):
        x = embed(model, torch.from_numpy(images))
        for index, block in enumerate(model.blocks):
            normed = block.norm1(x)
            seen = look(model, index, normed, places=places)
            evidence = Evidence(seen.attention, seen.keys, seen.values, shape.prefix_tokens, shape.class_token)
            scores = judge.score(evidence, settings)
            total = scores.importance.sum(1, keepdim=True).clamp_min(1e-30)
            importance[done : done + len(images), index] = (scores.importance / total).numpy()
            for name, values_of_batch in scores.notes.items():
                sums.setdefault(name, np.zeros(shape.depth))[index] += float(values_of_batch.sum())
            x = mlp(block, x + project(block, mix(seen), normed))
        done += len(images)
        if progress:
            progress(done, len(source))
    return Decisions(importance, {name: total / len(source) for name, total in sums.items()})


def patches_for_mass(importance: np.ndarray, mass: float, quantile: float) -> np.ndarray:
    """How many patches hold a share of the importance mass, by block.

    Args:
        importance: [images, blocks, patches], rows sum to 1.
        mass: share of the mass in (0, 1).
        quantile: share of the images for which the count must suffice.

    Returns:
        [blocks] int, at least 1.
    """
    counts = np.empty(importance.shape[:2], dtype=np.int64)
    for index, image in enumerate(importance):  # one image at a time: the array may be larger than memory
        cumulative = np.cumsum(-np.sort(-image, axis=1), axis=1)
        counts[index] = (cumulative < mass - 1e-7).sum(axis=1) + 1
    counts = np.minimum(counts, importance.shape[2])
    return np.quantile(counts, quantile, axis=0, method="higher")


def statistics(decisions: Decisions) -> dict[str, Any]:
    """The figures that stand in `budget.json`: patches for half, 80 % and 95 % of the mass, and the notes."""
    result: dict[str, Any] = {"images": decisions.images}
    for mass in (0.5, 0.8, 0.95):
        counts = patches_for_mass(decisions.importance, mass, 0.5)
        result[f"patches_for_mass_{mass}"] = [int(count) for count in counts]
    for name, values in decisions.notes.items():
        result[name] = [round(float(value), 4) for value in values]
    return result
