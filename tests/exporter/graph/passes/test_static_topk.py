"""TopK in the form that every runtime takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import export_module
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once

node = helper.make_node


def k_of(model: Any) -> int:
    top = next(node for node in model.graph.node if node.op_type == "TopK")
    held = next(tensor for tensor in model.graph.initializer if tensor.name == top.input[1])
    return int(numpy_helper.to_array(held)[0])


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(2, 40),
    dtype=st.sampled_from([np.float32, np.int32, np.int64]),
    largest=st.integers(0, 1),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_a_whole_ranking_shrinks_to_what_is_read(
    batch: int, tokens: int, dtype: Any, largest: int, seed: int, data: Any, make_graph: Any, rewritten: Any
) -> None:
    first, second = (data.draw(st.integers(1, tokens)) for _ in range(2))
    x = np.stack([np.random.default_rng(seed + row).permutation(tokens) for row in range(batch)]).astype(dtype)
    nodes = [
        node("TopK", ["x", "n"], ["values", "index"], axis=1, largest=largest),
        node("Slice", ["values", "zero", "first", "axis"], ["v"]),
        node("Slice", ["index", "zero", "second", "axis"], ["i"]),
    ]
    weights = {"n": [tokens], "zero": [0], "first": [first], "second": [second], "axis": [-1]}
    outputs = {"v": (dtype, (batch, first)), "i": (np.int64, (batch, second))}
    held = {name: np.array(value) for name, value in weights.items()}
    model = make_graph(nodes, {"x": x}, outputs, **held)
    result, _ = rewritten(model, {"x": x})
    assert k_of(result) == max(first, second)
    assert [finding.what for finding in lint(result, get_target("trt-8.5")) if finding.op == "TopK"] == []


def test_a_ranking_that_is_an_output_keeps_its_length(make_graph: Any, rewritten: Any) -> None:
    x = np.random.default_rng(0).random((1, 8), np.float32)
    nodes = [node("TopK", ["x", "n"], ["v", "i"]), node("Slice", ["v", "zero", "two", "one"], ["y"])]
    outputs = {"v": (np.float32, (1, 8)), "y": (np.float32, (1, 2))}
    weights = {"n": np.array([8]), "zero": np.array([0]), "two": np.array([2]), "one": np.array([1])}
    result, _ = rewritten(make_graph(nodes, {"x": x}, outputs, **weights), {"x": x})
    assert k_of(result) == 8


def test_floats_are_not_cast_and_integers_only_where_the_target_needs_it(make_graph: Any, rewritten: Any) -> None:
    for dtype, target, casts in [(np.float32, "trt-8.5", 0), (np.int32, "trt-8.5", 2), (np.int32, "trt-8.6", 0)]:
        x = np.arange(8).reshape(1, 8).astype(dtype)
        outputs = {"v": (dtype, (1, 3)), "i": (np.int64, (1, 3))}
        model = make_graph([node("TopK", ["x", "k"], ["v", "i"])], {"x": x}, outputs, k=np.array([3]))
        result, _ = rewritten(model, {"x": x}, target)
        assert operator_table(result).get("Cast", 0) == casts


@pytest.mark.parametrize("target", ["ort-cpu", "trt-10.3"])
def test_sorted_is_set(target: str, make_graph: Any, rewritten: Any) -> None:
    x = np.random.default_rng(0).random((2, 8), np.float32)
    nodes = [node("TopK", ["x", "k"], ["v", "i"], sorted=0), node("ReduceSum", ["v", "axis"], ["y"])]
    weights = {"k": np.array([3]), "axis": np.array([1])}
    result, counts = rewritten(make_graph(nodes, {"x": x}, {"y": (np.float32, (2, 1))}, **weights), {"x": x}, target)
    assert counts["TopK with constant K"] == 1
    assert all(a.i == 1 for n in result.graph.node if n.op_type == "TopK" for a in n.attribute if a.name == "sorted")


class Ranked(torch.nn.Module):
    """The three largest, by an argsort of integers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = (x * 100).to(torch.int32).argsort(dim=1, descending=True)
        return order[:, :3]


def test_argsort_of_integers_becomes_a_small_float_topk() -> None:
    x = torch.rand(2, 8, generator=torch.Generator().manual_seed(3))
    model = export_module(Ranked(), x)
    rewritten, _ = rewrite(model, get_target("trt-8.5"), {"x": x.numpy()})
    node = next(node for node in rewritten.graph.node if node.op_type == "TopK")
    k = next(tensor for tensor in rewritten.graph.initializer if tensor.name == node.input[1])
    assert onnx.numpy_helper.to_array(k).tolist() == [3]
    assert [finding.what for finding in lint(rewritten, get_target("trt-8.5")) if finding.op == "TopK"] == []
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], Ranked()(x).numpy())
    assert "trt-8.5 ranks no integers" in [finding.what for finding in lint(model, get_target("trt-8.5"))]
