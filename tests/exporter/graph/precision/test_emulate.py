"""A half-precision graph in float32 rounds wherever the half one does."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper

from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once

HALVES = {"fp16": (np.float16, TensorProto.FLOAT16), "bf16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16)}
X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)


def rounded(value: np.ndarray, half: str) -> np.ndarray:
    return value.astype(HALVES[half][0]).astype(np.float32)


@pytest.mark.parametrize("half", HALVES)
def test_every_value_is_rounded_once_and_sums_are_not(half: str, make_graph: Any) -> None:
    dtype, number = HALVES[half]
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=number),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Add", ["p", "p"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    model = with_shapes(make_graph(nodes, {"x": X}, {"y": (np.float32, (3, 5))}, 20, w=W.astype(dtype)))
    before = model.SerializeToString()
    found = run_once(emulated(model), {"x": X})["y"]
    assert model.SerializeToString() == before
    product = rounded(rounded(X, half) @ rounded(W, half), half)
    np.testing.assert_allclose(found, rounded(product + product, half), rtol=np.finfo(np.float32).eps * 4)
    assert np.abs(found - (X @ W) * 2).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_a_whole_graph_keeps_its_ends_and_has_no_half_left(half: Any, graphs: Any, noise: Any) -> None:
    model, image = graphs("zero_tprune", "trt-11"), noise(1)
    typed = to_half(model, half, wide_nodes(gs.import_onnx(model)), half_io=True).model
    result = emulated(typed)
    onnx.checker.check_model(result, full_check=True)
    assert [value.name for value in result.graph.output] == [value.name for value in model.graph.output]
    kinds = {tensor.data_type for tensor in result.graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in (*result.graph.input, *result.graph.output)}
    assert not kinds & {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    before, after = operator_table(typed), operator_table(result)
    assert after["Cast"] > before.get("Cast", 0)
    assert {op: count for op, count in after.items() if op != "Cast"} == {
        op: count for op, count in before.items() if op != "Cast"
    }
    old, new = (run_once(each, {"image": image})["logits"] for each in (model, result))
    error = np.abs(old - new).max()
    assert 0 < error < 0.1 * np.abs(old).max()
