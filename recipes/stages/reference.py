"""The stage that runs PyTorch once: what graphs are held against, and what proves the pruned model itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...calibration.images.reading import read_some
from ...calibration.images.sources import ImageSource, choose
from ...exporter.core import layout
from ...exporter.core.answers import TOKENS
from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.gates import gated
from ...exporter.pruning.reference import drop_tokens
from ...exporter.pruning.shape import read_tokens
from ...exporter.pruning.slim import hard_gates, slim
from ...exporter.pruning.torch_runner import TorchRunner, replay_of
from ...exporter.pruning.units import blocks_of
from ...exporter.pruning.vit import PrunedViT
from ...exporter.pruning.whole import WholeModel, deployable
from ...exporter.pruning.widths import Widths, read_widths
from ...exporter.runtime.rungs import stage_names
from ...exporter.runtime.runners import Outputs, run_all, whole_batches
from .kinds import outputs_of, plan_of, without_stages
from .stage import Stage

if TYPE_CHECKING:
    from .view import View

EAGER_IMAGES = 8  # what is compared inside PyTorch is equal or nearly so; more images would only take time


class Reference(Stage):
    """PyTorch's side of the ladder.

    `images.npy` [n, channels, height, width] float32; `outputs.npz`, by output [n, ...]; `eager.npz`, logits of the
    first few images: `dense`, `read` (the last block for the tokens that are read), `nothing_removed`, `dropped`
    (tokens really removed, one image at a time), and of a slimmed model `masked` and `narrow`; where last hidden tokens
    are wanted, timm's `tokens`, and `tokens_again` with nothing removed.
    """

    name = "reference"
    needs = ("slim", "calibrate")
    reads = ("export.batch", "export.tokens", "parity.images", "parity.golden")
    takes = ("model", "dense", "evaluation")

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Run the pruned model, and the few images in all other ways."""
        recipe, budget, model = view.recipe, plan_of(view), view.model
        batch = recipe.export.batch
        images = first_images(view.evaluation, max(recipe.parity.images, recipe.parity.golden), batch)
        pruned = deployable(model, budget, outputs_of(recipe.export))
        outputs = run_all(TorchRunner(pruned, batch), images, batch, view.listener.progress)
        few = torch.from_numpy(images[:EAGER_IMAGES])
        eager = dense_outputs(model, few)
        if TOKENS in outputs:
            eager |= whole_tokens(model, budget, few)
        if budget is not None:
            eager |= eager_outputs(model, budget, few, outputs)
        slimmed = view.folder_if_any("slim")
        if slimmed is not None:
            eager |= slimmed_outputs(view.dense, read_widths(slimmed / layout.WIDTHS), few)
        np.save(folder / "images.npy", images)
        np.savez(folder / "outputs.npz", **outputs)  # type: ignore[arg-type]
        np.savez(folder / "eager.npz", **eager)  # type: ignore[arg-type]


def eager_outputs(model: Any, budget: Budget, few: torch.Tensor, outputs: Outputs) -> dict[str, np.ndarray]:
    """Logits of timm's own model, of the pruned one with nothing removed, and of tokens dropped one image at a time."""
    dense = PrunedViT(model, without_stages(budget))
    with torch.inference_mode():
        nothing_removed = model.forward_head(dense.forward_features(few)).numpy()
    decisions = replay_of({name: outputs[name][: len(few)] for name in stage_names(outputs)})
    dropped = drop_tokens(model, budget, few, decisions.kept, decisions.merged)
    return {"nothing_removed": nothing_removed, "dropped": dropped.numpy()}


def whole_tokens(model: Any, budget: Budget | None, few: torch.Tensor) -> dict[str, np.ndarray]:
    """Last hidden tokens of timm's own model, and put back by a plan that removes nothing."""
    nothing = deployable(model, None if budget is None else without_stages(budget), ("logits", "grid"))
    with torch.inference_mode():
        found = nothing.trace(few).final
        assert found is not None
        return {TOKENS: model.forward_features(few).numpy(), f"{TOKENS}_again": found.numpy()}


def dense_outputs(model: Any, few: torch.Tensor) -> dict[str, np.ndarray]:
    """Logits of timm's own model and, if its classifier reads so few tokens, of one whose last block runs for them."""
    with torch.inference_mode():
        dense = {"dense": model(few).numpy()}
        return dense | ({"read": WholeModel(model)(few).numpy()} if read_tokens(model) else {})


def slimmed_outputs(dense: Any, widths: Widths, few: torch.Tensor) -> dict[str, np.ndarray]:
    """Logits of the narrower model, and of the whole one whose other heads and neurons are multiplied by 0.

    The sliced weights are compared, before least squares and fine-tuning change them; in float64, so that nothing but a
    wrong slice can differ (in float32 sums of other lengths round by 2e-5 in a logit of 15).
    """
    whole, images = copy.deepcopy(dense).double(), few.double()
    with torch.inference_mode():
        with gated(blocks_of(whole), hard_gates(widths, torch.float64)):
            masked = whole(images).numpy()
        narrow = slim(whole, widths)(images).numpy()
    return {"masked": masked, "narrow": narrow}


def widest_gap_batch(folder: Path, batch: int) -> np.ndarray:
    """The batch of a reference's images whose decisions are farthest from a near-tie.

    A pass is held against the graph before it to the last decision, which a near-tie would not survive.

    Returns:
        [batch, channels, height, width] float32.
    """
    images = np.load(folder / "images.npy", mmap_mode="r")
    with np.load(folder / "outputs.npz") as outputs:
        gaps = [outputs[name] for name in outputs.files if name.startswith("gap_") or name == "margin"]
    if not gaps:
        return np.array(images[:batch])
    return np.array(images[np.sort(np.argsort(-np.min(gaps, axis=0))[:batch])])


def first_images(source: ImageSource, count: int, batch: int) -> np.ndarray:
    """At least one batch of images, in whole batches, repeating a source that is too small.

    Returns:
        [n, channels, height, width] float32 with n a multiple of `batch`, at least `count` rounded up.
    """
    if len(source) == 0:
        raise InputError("there are no images")
    wanted = whole_batches(max(count, 1), batch)
    chosen = choose(len(source), count=min(wanted, len(source)))
    pixels = read_some(source, chosen)
    return np.resize(pixels, (wanted, *pixels.shape[1:])) if len(pixels) < wanted else pixels
