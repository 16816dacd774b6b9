"""LayerNormalization and Gelu in primitives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once

node = helper.make_node


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
    opset=st.sampled_from([17, 18, 20]),
    bias=st.booleans(),
    offset=st.sampled_from([0.0, 30.0]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_norm_is_the_same_in_primitives(
    shape: list[int],
    dtype: Any,
    opset: int,
    bias: bool,
    offset: float,
    seed: int,
    data: Any,
    make_graph: Any,
    rewritten: Any,
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) + offset).astype(dtype)
    tail = shape[axis % len(shape) :]
    weights = {"w": rng.standard_normal(tail).astype(dtype), "b": rng.standard_normal(tail).astype(dtype)}
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    nodes = [node("LayerNormalization", inputs, ["y"], axis=axis, epsilon=1e-5)]
    model = make_graph(nodes, {"x": x}, {"y": (dtype, tuple(shape))}, opset, **weights)
    result, counts = rewritten(model, {"x": x}, atol=2e-3 if offset and dtype == np.float32 else 2e-5)
    assert counts["LayerNormalization to primitives"] == 1
    assert "LayerNormalization" not in operator_table(result)
    assert result.opset_import[0].version == 17


def test_half_is_normalized_in_single(make_graph: Any, rewritten: Any) -> None:
    x = (np.random.default_rng(0).standard_normal((2, 3, 64)) * 300).astype(np.float16)  # its square overflows half
    weights = {"w": np.ones(64, np.float16), "b": np.zeros(64, np.float16)}
    nodes = [node("LayerNormalization", ["x", "w", "b"], ["y"], axis=-1)]
    result, _ = rewritten(make_graph(nodes, {"x": x}, {"y": (np.float16, x.shape)}, **weights), {"x": x}, atol=2e-3)
    assert operator_table(result)["Cast"] == 2  # in and out; weights are cast beforehand


@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.6", "trt-10.3"])
def test_targets_that_have_it_keep_it(target: str, make_graph: Any, rewritten: Any) -> None:
    x = np.random.default_rng(0).random((2, 8), np.float32)
    nodes = [node("LayerNormalization", ["x", "w"], ["y"], axis=-1)]
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, (2, 8))}, w=np.ones(8, np.float32))
    result, _ = rewritten(model, {"x": x}, target)
    assert operator_table(result) == {"LayerNormalization": 1}


def test_a_norm_that_must_stay_is_refused_by_name(make_graph: Any) -> None:
    x = np.random.default_rng(0).random((2, 8), np.float32)
    nodes = [node("LayerNormalization", ["x", "w"], ["y", "m"], axis=-1, name="norm")]
    outputs = {"y": (np.float32, (2, 8)), "m": (np.float32, (2, 1))}
    model = make_graph(nodes, {"x": x}, outputs, w=np.ones(8, np.float32))
    with pytest.raises(UnsupportedError, match=r"node norm: trt-8.5 has no LayerNormalization.*mean or deviation"):
        rewrite(model, get_target("trt-8.5"))


@pytest.mark.parametrize(("approximate", "dtype"), [("none", np.float32), ("tanh", np.float32), ("tanh", np.float64)])
@pytest.mark.parametrize("target", ["trt-8.5", "trt-8.6"])
def test_gelu_both_ways(approximate: str, dtype: Any, target: str, make_graph: Any, rewritten: Any) -> None:
    x = np.linspace(-8, 8, 101).astype(dtype).reshape(1, 101)
    model = make_graph([node("Gelu", ["x"], ["y"], approximate=approximate)], {"x": x}, {"y": (dtype, x.shape)})
    result, _ = rewritten(model, {"x": x}, target, atol=1e-6)
    table = operator_table(result)
    assert table.get("Erf", 0) == (approximate == "none")
    assert table.get("Tanh", 0) == (approximate == "tanh")
    assert [str(f) for f in lint(result, get_target(target)) if not f.what.startswith("float64")] == []


@settings(max_examples=15, deadline=None)
@given(shape=st.lists(st.integers(1, 7), min_size=2, max_size=3), seed=st.integers(0, 99), negative=st.booleans())
def test_any_running_sum_is_a_product(
    shape: list[int], seed: int, negative: bool, make_graph: Any, rewritten: Any
) -> None:
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    axis = np.array(-1 if negative else len(shape) - 1)
    model = make_graph([node("CumSum", ["x", "axis"], ["y"])], {"x": x}, {"y": (np.float32, tuple(shape))}, axis=axis)
    result, counts = rewritten(model, {"x": x})
    assert counts["CumSum to a product"] == 1
    assert operator_table(result) == {"MatMul": 1}


@pytest.mark.parametrize("attributes", [{"exclusive": 1}, {"reverse": 1}])
def test_other_running_sums_stay(attributes: dict[str, int], make_graph: Any, rewritten: Any) -> None:
    x = np.ones((2, 3), np.float32)
    nodes = [node("CumSum", ["x", "axis"], ["y"], **attributes)]
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, (2, 3))}, axis=np.array(1))
    assert operator_table(rewritten(model, {"x": x})[0])["CumSum"] == 1
    along = make_graph([node("CumSum", ["x", "axis"], ["y"])], {"x": x}, {"y": (np.float32, (2, 3))}, axis=np.array(0))
    assert operator_table(rewritten(along, {"x": x})[0])["CumSum"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("target", ["trt-8.5", "trt-10.13"])
def test_rms_norm_in_primitives(dtype: Any, target: str, make_graph: Any, rewritten: Any) -> None:
    x = (np.random.default_rng(0).standard_normal((2, 3, 16)) * 300).astype(dtype)  # its square overflows half
    nodes = [node("RMSNormalization", ["x", "w"], ["y"], axis=-1, epsilon=1e-6)]
    weight = np.linspace(0.5, 2, 16).astype(dtype)
    model = make_graph(nodes, {"x": x}, {"y": (dtype, x.shape)}, 23, w=weight)
    result, counts = rewritten(model, {"x": x}, target, atol=2e-3 if dtype == np.float16 else 1e-5)
    assert counts["RMSNormalization to primitives"] == 1
    table = operator_table(result)
    assert table["ReduceMean"] == 1
    assert table.get("Cast", 0) == (2 if dtype == np.float16 else 0)
    assert "Sub" not in table


@pytest.mark.parametrize("opset", [16, 15])
def test_a_block_can_go_below_opset_17(opset: int, make_graph: Any, rewritten: Any) -> None:
    """No target asks for it, but a strange runtime may: every operator of a block has a form in opset 16."""
    x = np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)
    weights = {"w": np.ones(8, np.float32), "b": np.zeros(8, np.float32), "axes": np.array([1])}
    nodes = [
        node("LayerNormalization", ["x", "w", "b"], ["n"], axis=-1),
        node("Gelu", ["n"], ["g"]),
        node("Split", ["g"], ["s", "t"], axis=2, num_outputs=2),
        node("Mul", ["s", "t"], ["p"]),
        node("ReduceMax", ["p", "axes"], ["y"], keepdims=0),
    ]
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, (1, 4))}, **weights)
    target = replace(get_target("trt-8.5"), name="old", opset=opset)
    result, _ = rewrite(model, target, {"x": x})
    assert result.opset_import[0].version == opset
    assert {"LayerNormalization", "Gelu"}.isdisjoint(operator_table(result))
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run_once(result, {"x": x})["y"], run_once(model, {"x": x})["y"], atol=1e-6)
    assert lint(result, target) == []


@pytest.mark.slow
def test_lowered_norm_and_gelu_count(traced: onnx.ModelProto, image: Any, counts: Any) -> None:
    rewritten, reports = rewrite(traced, get_target("trt-8.5"), image())
    done = counts(reports)
    assert done["LayerNormalization to primitives"] == 9  # two a block and the last
    assert done["Gelu to Erf"] == operator_table(rewritten)["Erf"] == 4
    reduces = [node for node in rewritten.graph.node if node.op_type == "ReduceMean"]
    assert all(len(node.input) == 1 for node in reduces)  # opset 17: axes is an attribute
