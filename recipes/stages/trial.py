"""Graphs timed in turns on this machine: which of some is fastest, and whether a precision is faster than float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...exporter.core.targets import Target
from ...exporter.runtime.bench.interleave import interleave
from ...exporter.runtime.bench.stats import paired_ratio
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.commands.bench import random_images
from ...exporter.runtime.runners import Runner

TRIAL_ROUNDS = 25
CLEARLY = 0.98  # of the time of the first form, which another form must stay below


def fastest(
    candidates: dict[str, onnx.ModelProto], target: Target, threads: int | None
) -> tuple[str, dict[str, float]]:
    """The candidate with the lowest median, timed in turns; the first one unless another is clearly faster."""
    runners = {name: runner_for(model.SerializeToString(), target, threads)[0] for name, model in candidates.items()}
    medians = {name: float(np.median(samples)) for name, samples in _samples(runners).items()}
    first = next(iter(medians))
    best = min(medians, key=lambda name: medians[name])
    return best if medians[best] < CLEARLY * medians[first] else first, medians


def _samples(runners: Mapping[str, Runner]) -> dict[str, np.ndarray]:
    first = next(iter(runners.values()))
    image = random_images(first.shape, first.dtype)
    return interleave({name: partial(runner, image) for name, runner in runners.items()}, TRIAL_ROUNDS, warmup=0.1)


def trial(float32: Path, narrow: Path, target: Target, threads: int | None, precision: Any) -> dict[str, Any]:
    """How much faster than the float32 graph another one is, where the target's runtime is here.

    Args:
        float32: the graph's file.
        narrow: the file of the other one.
        target: where they will run.
        threads: of onnxruntime.
        precision: of the other one.

    Returns:
        `speedup_over_fp32` and its 95 % `interval`; both None with the reason as `not_timed`.
    """
    nothing = {"speedup_over_fp32": None, "interval": None}
    if target.runtime == "tensorrt":
        return {**nothing, "not_timed": f"{target.name} does not run here"}
    plain, cpu_only = runner_for(float32, target, threads)
    if cpu_only:
        return {**nothing, "not_timed": cpu_only}
    runners = {"fp32": plain, precision: runner_for(narrow, target, threads, precision)[0]}
    samples = _samples(runners)
    ratio = paired_ratio(samples["fp32"], samples[precision])
    return {"speedup_over_fp32": ratio.median, "interval": list(ratio.interval)}
