"""Small pruned ViTs as graphs for a target, traced once each, and ways to run them and to read their types."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from helpers import budget_for, small_swin, small_vit
from onnx.reference import ReferenceEvaluator

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.whole import deployable

Graphs = Callable[..., onnx.ModelProto]
STAGES = {0: 12, 1: 8}
PATCH14 = {"img_size": 56, "patch_size": 14}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "swiglu": ("eva02_tiny_patch14_224", PATCH14),
    "separate": ("eva02_base_patch14_448", PATCH14),
    "pool": ("vit_base_patch16_siglip_224", {}),
    "bias": ("beit_base_patch16_224", {}),
    "rotary": ("vit_small_patch16_dinov3", {}),
}


@functools.cache
def _traced(method: str, batch: int) -> onnx.ModelProto:
    model = small_vit(depth=2)
    return trace(deployable(model, budget_for(model, STAGES, method), ("logits", "kept")), batch)


@functools.cache
def _graph(method: str, target: str, batch: int) -> onnx.ModelProto:
    return rewrite(_traced(method, batch), get_target(target))[0]


@functools.cache
def _family(name: str, target: str) -> tuple[onnx.ModelProto, Any]:
    model = small_swin() if name == "swin" else small_vit(FAMILIES[name][0], depth=2, **FAMILIES[name][1])
    return rewrite(trace(deployable(model, None, ("logits",)), 1), get_target(target))[0], preprocessing(model)


@pytest.fixture(scope="session")
def graphs() -> Graphs:
    """(method, target, batch) -> a float32 graph of two blocks: 17 tokens, then 12 and 8."""

    def make(method: str = "zero_tprune", target: str = "ort-cpu", batch: int = 1) -> onnx.ModelProto:
        return copied(_graph(method, target, batch))

    return make


@pytest.fixture(scope="session")
def families() -> Callable[..., tuple[onnx.ModelProto, Any]]:
    """(family, target) -> a float32 graph of an unpruned model of another kind, and its preprocessing."""

    def make(name: str, target: str = "ort-cpu") -> tuple[onnx.ModelProto, Any]:
        model, preprocess = _family(name, target)
        return copied(model), preprocess

    return make


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that a test may change."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """(count, size, seed) -> images."""

    def make(count: int = 1, size: int = 64, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((count, 3, size, size), dtype=np.float32)

    return make


@pytest.fixture(scope="session")
def as_written() -> Callable[..., dict[str, np.ndarray]]:
    """(model, image) -> outputs of ONNX's reference evaluator, which rounds every operation to its type."""

    def run(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
        evaluator = ReferenceEvaluator(model)
        with np.errstate(all="ignore"):
            return dict(zip(evaluator.output_names, evaluator.run(None, {"image": image}), strict=True))

    return run


@pytest.fixture(scope="session")
def types_of() -> Callable[..., dict[str, int]]:
    """(model) -> by value, the element type that inference gives from inputs and weights alone."""

    def read(model: onnx.ModelProto) -> dict[str, int]:
        bare = copied(model)
        del bare.graph.value_info[:]
        graph = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        values = (*graph.input, *graph.output, *graph.value_info)
        return types | {value.name: value.type.tensor_type.elem_type for value in values}

    return read


@pytest.fixture(scope="session")
def surgeon() -> Callable[[onnx.ModelProto], gs.Graph]:
    """(model) -> its graph with links both ways."""
    return gs.import_onnx
