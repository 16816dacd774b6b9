"""Thresholds of stages from calibration images: a quantile of what the method compares with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.evidence import Evidence
from ...exporter.pruning.methods.options import parameters_of
from ...exporter.pruning.vit import PrunedViT
from ..images.reading import batches
from ..images.sources import ImageSource


def wanted_quantile(budget: Budget) -> float | None:
    """The share of the images that is to lie below each stage's threshold; None: nothing is to be calibrated."""
    method = get_method(budget.method)
    return None if method.threshold is None else budget.parameters.get(method.threshold.quantile)


@torch.inference_mode()
def calibrate_thresholds(
    model: Any,
    budget: Budget,
    source: ImageSource,
    quantile: float,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Budget:
    """Write a threshold into every stage: the quantile over images of the statistic that the stage will see.

    Stage by stage, since what a stage sees depends on the thresholds before it.

    Args:
        model: the model whose tokens go.
        budget: a plan of a method that declares a `threshold`.
        source: calibration images.
        quantile: share of the images below the threshold.
        batch: images per pass.
        progress: called with (stages done, stages).

    Returns:
        the budget with the thresholds in its rows, and the statistic's spread under `statistics`.
    """
    method = get_method(budget.method)
    assert method.threshold is not None, f"{budget.method} has no threshold"
    option = method.threshold.option
    parameters = parameters_of(budget)
    # A stage that keeps no patch decides nothing, so it has no threshold.
    blocks = [row.block for row in budget.choosing]
    rows = [row.model_copy(update={option: 0.0}) if row.block in blocks else row for row in budget.blocks]
    spread: dict[str, Any] = {}
    for index, block in enumerate(blocks):
        seen: list[torch.Tensor] = []

        def observe(stage: int, evidence: Evidence, block: int = block, seen: list[torch.Tensor] = seen) -> None:
            if stage == block:
                seen.append(method.statistic(evidence, parameters))

        pruned = PrunedViT(model, budget.model_copy(update={"blocks": tuple(rows)}))
        for images in batches(source, batch):
            pruned.trace(torch.from_numpy(images), observe=observe)
        values = torch.cat(seen).numpy()
        rows[block] = rows[block].model_copy(update={option: float(np.quantile(values, quantile))})
        spread[str(block)] = [float(f"{value:.4g}") for value in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0))]
        if progress:
            progress(index + 1, len(blocks))
    statistics = budget.statistics | {f"{method.threshold.measures}_quartiles": spread}
    return budget.model_copy(update={"blocks": tuple(rows), "statistics": statistics})
