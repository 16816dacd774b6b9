"""A small pruned graph and its floor for every target, and jobs that make int8 of them."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from helpers import budget_for, small_vit
from listeners import Ears
from small_graphs import stretched

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.surgery import copy_of
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.whole import deployable
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.schema.sections.outputs import PrecisionSection
from vitrim.recipes.stages.kinds import budget_of_kind
from vitrim.recipes.stages.precisions.half import Job

IMAGES = np.random.default_rng(0).standard_normal((32, 3, 64, 64), dtype=np.float32)


@functools.cache
def traced(kind: str, compares: bool, batch: int = 1) -> onnx.ModelProto:
    model = small_vit(depth=2)
    budget = None if kind == "dense" else budget_of_kind(kind, budget_for(model, {0: 12, 1: 8}))
    return trace(deployable(model, budget, ("logits", "kept")[: 1 + (kind == "pruned")], compares), batch)


def graphs(target: str, *factors: float, kinds: Collection[str] = ("pruned", "floor")) -> dict[str, onnx.ModelProto]:
    """A pruned graph of two blocks and its floor, which on a CPU makes its queries apart; `dense`: the model."""
    found = {kind: rewrite(traced(kind, get_target(target).symmetric), get_target(target))[0] for kind in kinds}
    return {kind: stretched(copy_of(model), *factors) for kind, model in found.items()}


def minus(model: onnx.ModelProto, constant: np.ndarray) -> onnx.ModelProto:
    """A graph whose logits are so much less."""
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "raw"
    model.graph.initializer.append(onnx.numpy_helper.from_array(constant, "constant"))
    model.graph.node.append(onnx.helper.make_node("Sub", ["raw", "constant"], ["logits"], "minus"))
    return model


def job(target: str, **section: Any) -> Job:
    return Job(PrecisionSection(name="int8", images=8, **section), get_target(target), IMAGES, 1, Ears())


def logits(model: onnx.ModelProto) -> np.ndarray:
    return run_all(OrtRunner(model.SerializeToString(), threads=1), IMAGES, 1)["logits"]
