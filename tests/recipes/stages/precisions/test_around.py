"""What is around int8 products on OpenVINO: bf16 where it is faster and holds, else float32; a scale per token."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from int8_graphs import IMAGES, graphs, job

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.surgery import import_graph
from vitrim.exporter.runtime.choose import runner_for
from vitrim.exporter.runtime.runners import run_all
from vitrim.recipes.stages.precisions import around as int8_around
from vitrim.recipes.stages.precisions.around import half_for
from vitrim.recipes.stages.precisions.half import Written
from vitrim.recipes.stages.precisions.int8 import make_int8

BFLOAT16 = onnx.TensorProto.BFLOAT16
OPENVINO = get_target("openvino")


def logits(model: onnx.ModelProto) -> np.ndarray:
    runner, why = runner_for(model.SerializeToString(), OPENVINO, 1)
    assert why is None
    return run_all(runner, IMAGES, 1)["logits"]


def bf16_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that answer in bfloat16."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    return {node.name for node in model.graph.node if types.get(node.output[0]) == BFLOAT16}


@pytest.fixture(scope="module")
def models() -> dict[str, onnx.ModelProto]:
    return graphs("openvino", 1.0, 1.0)


@pytest.fixture(scope="module")
def in_bf16(models: dict[str, onnx.ModelProto]) -> Written:
    return make_int8(job("openvino", around="bf16"), models, 0.9)


def test_bf16_is_around_pairs_and_scores_stay_float32(models: Any, in_bf16: Written) -> None:
    assert (in_bf16.report["around"], in_bf16.report["form"]) == ("bf16", "static")
    for kind, model in in_bf16.graphs.items():
        assert [str(f) for f in lint(model, OPENVINO) if f.severity == "error"] == []
        low, wide = bf16_nodes(model), wide_nodes(import_graph(models[kind]), inner_float32=True)
        assert set(quantizable(models[kind])) <= low
        assert not low & wide
        own = {node.name for node in models[kind].graph.node if node.op_type != "Conv"}  # no bfloat16 before opset 22
        assert set(in_bf16.report["float32_nodes"][kind]) & own <= wide
    wanted, found = logits(models["pruned"]), logits(in_bf16.graphs["pruned"])
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9
    assert 0 < np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()


@pytest.mark.parametrize(("milliseconds", "limit", "around"), [((1, 2), 0.5, "bf16"), ((2, 1), 0.5, "fp32")])
def test_auto_takes_the_faster_one(
    milliseconds: Any, limit: float, around: str, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(candidates: Any, target: Any, threads: Any) -> tuple[str, dict[str, float]]:
        times = dict(zip(candidates, map(float, milliseconds), strict=True))
        return min(times, key=times.__getitem__), times

    monkeypatch.setattr(int8_around, "fastest", timed)
    made = make_int8(job("openvino"), {"pruned": models["pruned"]}, limit)
    assert made.report["around"] == around
    assert made.report["forms_timed"] == {"bf16": milliseconds[0], "fp32": milliseconds[1]}
    assert bool(bf16_nodes(made.graphs["pruned"])) == (around == "bf16")


@pytest.mark.exhaustive
def test_auto_falls_back_to_float32_where_bf16_alone_does_not_hold(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_around, "fastest", lambda *_: ("bf16", {"bf16": 1.0, "fp32": 2.0}))
    made = make_int8(job("openvino"), {"pruned": models["pruned"]}, 1.01)  # which nothing has
    assert made.report["around"] == "fp32"
    assert set(made.report["scan"]["float32"]) == set(quantizable(models["pruned"]))
    assert np.abs(logits(made.graphs["pruned"]) - logits(models["pruned"])).max() < 1e-4


def test_gpus_have_fp16_around() -> None:
    assert [half_for(get_target(name)) for name in ("openvino", "openvino-gpu")] == ["bf16", "fp16"]
