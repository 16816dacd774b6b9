"""PPT's thresholds from calibration images: at every stage, the share of images that is meant to pool does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods.base import Evidence
from ...exporter.pruning.methods.ppt import share_variance, significance
from ...exporter.pruning.vit import PrunedViT
from ..images.sources import ImageSource, batches


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
    """Write a `threshold` into every stage: the quantile over images of the variance that the stage will see.

    Stage by stage, since what a stage sees depends on the thresholds before it.

    Args:
        model: the model whose tokens go.
        budget: a plan of PPT.
        source: calibration images.
        quantile: share of the images that pools.
        batch: images a pass.
        progress: called with (stages done, stages).

    Returns:
        the budget with the thresholds in its rows, and the variances' spread under `statistics`.
    """
    # A stage that keeps no patch decides nothing, so it has no threshold.
    blocks = [row.block for row in budget.stages if row.after > budget.prefix_tokens]
    rows = [row.model_copy(update={"threshold": 0.0}) if row.block in blocks else row for row in budget.blocks]
    spread: dict[str, Any] = {}
    for index, block in enumerate(blocks):
        seen: list[torch.Tensor] = []

        def observe(stage: int, evidence: Evidence, block: int = block, seen: list[torch.Tensor] = seen) -> None:
            if stage == block:
                seen.append(share_variance(significance(evidence)))

        pruned = PrunedViT(model, budget.model_copy(update={"blocks": tuple(rows)}))
        for images in batches(source, batch):
            pruned.trace(torch.from_numpy(images), observe=observe)
        variance = torch.cat(seen).numpy()
        rows[block] = rows[block].model_copy(update={"threshold": float(np.quantile(variance, quantile))})
        spread[str(block)] = [float(f"{value:.4g}") for value in np.quantile(variance, (0.0, 0.25, 0.5, 0.75, 1.0))]
        if progress:
            progress(index + 1, len(blocks))
    statistics = budget.statistics | {"variance_quartiles": spread}
    return budget.model_copy(update={"blocks": tuple(rows), "statistics": statistics})
