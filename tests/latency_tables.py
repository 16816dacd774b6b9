"""Latency tables with round numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitrim.exporter.core.latency import FORMAT, Conditions, FormTimes, LatencyTable, StageCost

SLOW, FAST = 0.2, 0.175  # milliseconds of a token in all attention halves
MLP = 0.3  # ... and in all MLP halves


def made_table(counts: tuple[int, ...] = (1, 9, 17), stages: Any = None, **of: Any) -> LatencyTable:
    """A table whose halves are straight lines, a millisecond and so much a token."""
    found = {"zero_tprune": StageCost(0.25, 0.0)} if stages is None else stages
    known: dict[str, Any] = {"model": "small", "tokens": 17, "gmacs": 1.0, "target": "ort-cpu", "device": "a processor"}
    known |= {"runtime": "onnxruntime 1", "precision": "fp32", "batch": 1, "threads": 1}
    line = np.array(counts, dtype=float)

    def form(dense: float, slope: float) -> FormTimes:
        return FormTimes(dense, tuple(float(one) for one in 1 + slope * line), dict(found))

    return LatencyTable(
        format=FORMAT,
        of=Conditions(**(known | of)),
        counts=counts,
        mlp=tuple(float(one) for one in 1 + MLP * line),
        forms={"decomposed": form(10.0, SLOW), "fused": form(9.5, FAST)},
        clock="processor",
        processes=2,
        rounds=3,
        spread=0.01,
        environment={"cores": 2},
    )
