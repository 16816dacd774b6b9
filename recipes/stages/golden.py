"""What a recipe's graph takes and gives, as a run needs it: checks, proofs, golden files, words for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess, channel_constants, to_pixels
from ...exporter.graph.io import Ends, check_top_k
from ..schema.sections.outputs import ExportSection


def ends_of(section: ExportSection, preprocess: Preprocess) -> Ends:
    """What a recipe's graph takes and gives beside its answer."""
    return Ends(preprocess, section.input == "uint8", section.top_k)


def check_ends(ends: Ends, classes: int) -> None:
    """Refuse ends that do not fit a model.

    Raises:
        InputError: more classes than there are, or mean and deviation that do not fit the channels.
    """
    if ends.pixels:
        channel_constants(ends.preprocess)
    if ends.top_k is not None:
        if not classes:
            raise InputError("export.top_k ranks classes, but the model has no classifier; take it out")
        check_top_k(ends.top_k, classes)


def golden_of(images: np.ndarray, reference: Mapping[str, np.ndarray], ends: Ends) -> dict[str, np.ndarray]:
    """What `golden.npz` holds.

    Args:
        images: [n, channels, height, width] float32, on the 8-bit grid if the graph takes pixels.
        reference: PyTorch's outputs on them.
        ends: of the graph.

    Returns:
        `image` as the graph takes it, the reference, and PyTorch's own `probabilities` and `classes` where the graph
        ranks them.
    """
    golden = {"image": to_pixels(images, ends.preprocess) if ends.pixels else images, **reference}
    if ends.top_k is not None:
        best = torch.from_numpy(reference["logits"]).softmax(-1).topk(ends.top_k)
        golden |= {"probabilities": best.values.numpy(), "classes": best.indices.to(torch.int32).numpy()}
    return golden


def input_facts(section: ExportSection, preprocess: Preprocess) -> dict[str, Any]:
    """The graph's input as plain data for a manifest."""
    channels, height, width = preprocess.input_size
    batch = section.batch
    if section.input == "uint8":
        return {
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "shape": [batch, height, width, channels],
            "normalization": "in the graph: give RGB pixels 0..255, resized and cropped",
        }
    return {
        "name": "image",
        "dtype": "float32",
        "layout": "NCHW",
        "shape": [batch, channels, height, width],
        "normalization": "before the graph: RGB on a 0..1 scale, less mean, over std of preprocess",
    }


def input_words(facts: Mapping[str, Any]) -> str:
    """`input_facts` for a person."""
    kind = f"[{', '.join(map(str, facts['shape']))}] {facts['dtype']} ({facts['layout']})"
    if facts["dtype"] == "uint8":
        return f"{kind}: RGB pixels, resized and cropped as `manifest.json` says; the graph normalizes"
    return f"{kind}, preprocessed as `manifest.json` says"
