"""A pruned model as it is traced, and what a report says in short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit

from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.vit import PrunedViT


@pytest.fixture(scope="session")
def traced() -> onnx.ModelProto:
    """Four blocks, of which the second and third prune by similarity and attention."""
    model = small_vit(init_values=0.1)
    pruned = PrunedViT(model, budget_for(model, {1: 11, 2: 6}, similar=2), ("logits", "kept"))
    return trace(pruned, 1, {"recipe": {"a": 1}})


@pytest.fixture(scope="session")
def image() -> Callable[..., dict[str, np.ndarray]]:
    """(batch) -> a feed of noise."""

    def make(batch: int = 1) -> dict[str, np.ndarray]:
        return {"image": np.random.default_rng(0).standard_normal((batch, 3, 64, 64), dtype=np.float32)}

    return make


@pytest.fixture(scope="session")
def counts() -> Callable[[list[Any]], dict[str, int]]:
    """(reports) -> rewrites by pass, of those that did something."""

    def of(reports: list[Any]) -> dict[str, int]:
        return {report.name: report.count for report in reports if report.count}

    return of
