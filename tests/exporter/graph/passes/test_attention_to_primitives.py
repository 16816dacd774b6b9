"""Attention in primitives equals onnxruntime's own, and what cannot be is refused by name."""

from __future__ import annotations

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


def attention(
    make_graph: Any, heads: int, groups: int, flat: bool, inputs: dict[str, np.ndarray], **attributes: Any
) -> onnx.ModelProto:
    query, value = inputs["q"], inputs["v"]
    if flat:
        attributes |= {"q_num_heads": heads, "kv_num_heads": groups}
        shape = (*query.shape[:2], value.shape[2] // groups * heads)
    else:
        shape = (*query.shape[:3], value.shape[3])
    nodes = [node("Attention", list(inputs), ["y"], name="attend", **attributes)]
    return make_graph(nodes, inputs, {"y": (query.dtype, shape)}, 23)


def draw(rng: np.random.Generator, batch: int, heads: int, tokens: int, width: int, flat: bool) -> np.ndarray:
    shape = (batch, tokens, heads * width) if flat else (batch, heads, tokens, width)
    return rng.standard_normal(shape).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    flat=st.booleans(),
    group=st.sampled_from([1, 2]),
    keys=st.sampled_from([5, 7]),
    mask=st.sampled_from(["none", "added", "boolean", "causal"]),
    scale=st.sampled_from([None, 0.3]),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_any_attention_is_the_same_in_primitives(
    flat: bool,
    group: int,
    keys: int,
    mask: str,
    scale: float | None,
    batch: int,
    seed: int,
    make_graph: Any,
    rewritten: Any,
) -> None:
    rng = np.random.default_rng(seed)
    tokens = keys if mask == "causal" else 5
    inputs = {"q": draw(rng, batch, 4, tokens, 8, flat)}
    inputs |= {"k": draw(rng, batch, 4 // group, keys, 8, flat), "v": draw(rng, batch, 4 // group, keys, 6, flat)}
    if mask == "added":
        inputs["m"] = rng.standard_normal((batch, 1, tokens, keys)).astype(np.float32)
    if mask == "boolean":
        inputs["m"] = rng.random((tokens, keys)) < 0.7
        inputs["m"][:, 0] = True  # what a query that sees nothing gets is nobody's promise
    attributes: dict[str, Any] = {} if scale is None else {"scale": scale}
    if mask == "causal":
        attributes["is_causal"] = 1
    model = attention(make_graph, 4, 4 // group, flat, inputs, **attributes)
    result, counts = rewritten(model, inputs, "trt-10.13")
    assert counts["Attention to primitives"] == 1
    assert result.opset_import[0].version == 22
    table = operator_table(result)
    assert (table["MatMul"], table["Softmax"], table.get("Attention")) == (2, 1, None)
    assert table.get("Expand", 0) == (2 if group > 1 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-8.5", "trt-8.6", "trt-10.3", "trt-10.13", "ort-cuda"])
def test_a_graph_with_fused_attention_fits_targets_without_it(target: str, traced: onnx.ModelProto) -> None:
    """The fused form of a pruned model, its pruning stages reading the matrix, goes back for every target."""
    fused, _ = rewrite(traced, get_target("ort-cpu"), fused_attention=True)
    assert operator_table(fused)["Attention"] == 4
    feeds = {"image": np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)}
    result, reports = rewrite(fused, get_target(target), feeds)
    assert next(report.count for report in reports if report.name == "Attention to primitives") == 4
    assert "Attention" not in operator_table(result)
    assert [str(finding) for finding in lint(result, get_target(target))] == []
    before, after = run_once(traced, feeds), run_once(result, feeds)
    np.testing.assert_allclose(after["logits"], before["logits"], atol=2e-5)
    np.testing.assert_array_equal(after["kept_2"], before["kept_2"])


@pytest.mark.parametrize("target", ["ort-cpu", "trt-10.16", "trt-11"])
def test_targets_that_have_it_keep_it(target: str, make_graph: Any, rewritten: Any) -> None:
    inputs = {name: draw(np.random.default_rng(0), 1, 2, 3, 4, True) for name in "qkv"}
    result, _ = rewritten(attention(make_graph, 2, 2, True, inputs), inputs, target)
    assert operator_table(result) == {"Attention": 1}


def test_half_with_a_float32_softmax_casts_around_it(make_graph: Any, rewritten: Any) -> None:
    inputs = {name: draw(np.random.default_rng(0), 1, 2, 3, 4, True).astype(np.float16) for name in "qkv"}
    result, _ = rewritten(attention(make_graph, 2, 2, True, inputs, softmax_precision=1), inputs, "trt-8.5", atol=2e-3)
    softmax = next(each for each in result.graph.node if each.op_type == "Softmax")
    kinds = {value.name: value.type.tensor_type.elem_type for value in result.graph.value_info}
    assert kinds[softmax.output[0]] == onnx.TensorProto.FLOAT
    assert operator_table(result)["Cast"] == 2


@pytest.mark.parametrize(
    ("attributes", "outputs", "words"),
    [
        ({"softcap": 2.0}, ["y"], "it has a soft cap"),
        ({}, ["y", "", "", "p"], "its matrix before the softmax is read"),
        ({}, ["y", "keys"], "its keys and values are handed on"),
    ],
)
def test_what_must_stay_is_refused_by_name(attributes: dict, outputs: list[str], words: str, make_graph: Any) -> None:
    x = np.ones((1, 2, 3, 4), np.float32)
    shapes = {"y": x.shape, "p": (1, 2, 3, 3), "keys": x.shape}
    nodes = [node("Attention", ["q", "k", "v"], outputs, name="attend", **attributes)]
    shown = {name: (np.float32, shapes[name]) for name in outputs if name}
    model = make_graph(nodes, dict.fromkeys("qkv", x), shown, 23)
    with pytest.raises(UnsupportedError, match=f"node attend: trt-8.5 has no Attention, and it must stay: {words}"):
        rewrite(model, get_target("trt-8.5"))
