"""Optional fine-tuning of a slimmed model: the dense model teaches, and labels do where there are any.

A checkpoint is written after every epoch, and a run that was stopped goes on from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...exporter.core.errors import InputError
from ...exporter.core.files import atomic_path
from ..images.reading import read_some, shuffled
from ..images.sources import ImageSource
from .rates import task_loss


def finetune(
    dense: nn.Module,
    slimmed: nn.Module,
    source: ImageSource,
    checkpoint: str | os.PathLike[str],
    *,
    epochs: int,
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, ...]:
    """Train all weights of the slimmed model, in place, by AdamW with a cosine schedule.

    Args:
        dense: the teacher.
        slimmed: the student, in eval mode (no dropout).
        source: images, labelled or not.
        checkpoint: file of the state after the last whole epoch; resumed from where it is there.
        epochs: over the images.
        lr: at the start; falls to 0 along a cosine.
        weight_decay: AdamW's.
        batch: images per step.
        seed: of the order.
        progress: called with (steps done, steps).

    Returns:
        by epoch, the mean loss: divergence from the dense model's answers, plus the labels' cross-entropy.

    Raises:
        InputError: the checkpoint is damaged or another run's.
        EnvironmentLackError: it cannot be written.
    """
    path = Path(checkpoint)
    slimmed.requires_grad_(True)
    parameters = list(slimmed.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    steps = -(-len(source) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / (steps * epochs))))
    )
    losses = _resume(path, slimmed, optimizer, schedule)
    labels = None if source.labels is None else torch.from_numpy(np.asarray(source.labels)).long()
    for epoch in range(len(losses), epochs):
        total = 0.0
        # The order depends on the epoch alone, so a resumed run sees what an unbroken one would have seen.
        for step, indices in enumerate(shuffled(len(source), batch, np.random.default_rng((seed, epoch)))):
            images = torch.from_numpy(read_some(source, indices))
            with torch.no_grad():
                taught = dense(images)
            answers = slimmed(images)
            loss = task_loss(answers, taught, None)
            if labels is not None:
                loss = loss + F.cross_entropy(answers, labels[torch.from_numpy(indices)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(indices)
            if progress:
                progress(epoch * steps + step + 1, epochs * steps)
        losses.append(total / len(source))
        with atomic_path(path) as temporary:
            torch.save(
                {
                    "model": slimmed.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "losses": losses,
                },
                temporary,
            )
    slimmed.requires_grad_(False)
    return tuple(losses)


def _resume(
    path: Path,
    slimmed: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> list[float]:
    """Losses of the epochs that a checkpoint has behind it, its state loaded; none where there is no checkpoint."""
    if not path.exists():
        return []
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        slimmed.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        return list(saved["losses"])
    except Exception as error:  # a torn file fails in many ways, and all of them mean the same to the user
        raise InputError(f"{path} cannot be resumed from ({type(error).__name__}); remove it to start anew") from error
