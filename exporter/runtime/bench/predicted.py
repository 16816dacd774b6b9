"""What a latency table of this machine predicted of a bundle's plan, beside what was timed. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...core.inputs import read_json
from ...core.latency import PlanLatency, latency_of
from ...core.targets import Target
from ..machine.named import machine_of
from .report import Bench, Prediction


def told_by(budget: Path) -> PlanLatency | None:
    """What a latency table said of a bundle's plan; None where it was not solved on one.

    Raises:
        InputError: the budget is damaged.
    """
    data = read_json(budget, "budget", "vitrim export")
    statistics = data.get("statistics") if isinstance(data, Mapping) else None
    return latency_of(statistics) if isinstance(statistics, Mapping) else None


def prediction_here(told: PlanLatency | None, target: Target, found: Bench) -> Prediction | None:
    """A bundle's prediction held against a benchmark of it: as ratios to dense, which other work moves less.

    An export measures a prediction itself, as its table was; this is of a bundle whose table came from this device.

    Args:
        told: by the table.
        target: the bundle's.
        found: the benchmark.

    Returns:
        None where there was no table, or it is of another machine or number of threads, or another runtime ran the
        graphs than the target's.
    """
    if told is None or found.cpu_only is not None:
        return None
    threads = found.conditions.threads if target.is_cpu else told.table.threads
    here = {**machine_of(target), "threads": threads}
    if any(getattr(told.table, key) != value for key, value in here.items()):
        return None
    speedup = told.dense_ms / told.predicted_ms
    return Prediction(
        predicted_ms=told.predicted_ms,
        measured_ms=found.pruned.median,
        predicted_speedup=speedup,
        measured_speedup=found.speedup,
        judged_by="speedup",
        error=found.speedup / speedup - 1,
        correction_ms=told.correction_ms,
    )
