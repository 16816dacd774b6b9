"""fp16 around int8: a model beyond fp16's range and one below it hold where nothing guards them they do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from small_graphs import stretched

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.precision.around import Around, fp16_around
from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.precision.float32_nodes import QDQ, wide_nodes
from vitrim.exporter.graph.precision.half import OLDEST_QDQ, to_half
from vitrim.exporter.graph.precision.misfits import Misfits, quantized_products
from vitrim.exporter.graph.precision.qdq import quantizable, restored, with_qdq
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.precision.sensitivity import Layout
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.runtime.rungs import cosine
from vitrim.exporter.runtime.runners import OrtRunner, run_all

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
TARGETS = ["trt-8.5", "trt-10.3", "trt-11", "ort-trt"]
FACTORS = {"overflowing": 5.5e4, "subnormal": 1.4e-6}  # of an MLP's first product; the second one has it back


def by_flag(target: str) -> bool:
    return get_target(target).opset < OLDEST_QDQ


def maker(model: onnx.ModelProto, images: np.ndarray) -> Callable[[Layout], onnx.ModelProto]:
    ranges = quantization_ranges(model, [images], "minmax", symmetric=True)
    pairs = with_qdq(model, ranges, quantizable(model), "tensorrt")
    return lambda layout: with_shapes(restored(pairs, model, layout.floats))


@pytest.fixture(scope="session")
def around(graphs: Any, noise: Any) -> Callable[[str, str], tuple[onnx.ModelProto, onnx.ModelProto, Around]]:
    """(target, case) -> the float32 graph; the int8 graph with fp16 around and no guard; the guarded one."""

    @functools.cache
    def build(target: str, case: str) -> tuple[onnx.ModelProto, onnx.ModelProto, Around]:
        model = stretched(graphs("zero_tprune", target), *[FACTORS.get(case, 1.0)] * 2)
        make = maker(model, noise(8))
        bare = make(Layout())
        unguarded = to_half(bare, "fp16", wide_nodes(gs.import_onnx(bare))).model
        return model, unguarded, fp16_around(make, Layout(), [noise(8)], 4.0, by_flag=by_flag(target))

    return build


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return run_all(OrtRunner(model.SerializeToString(), threads=1), images, 1)["logits"]


@pytest.mark.slow
@pytest.mark.parametrize("case", FACTORS)
@pytest.mark.parametrize("target", TARGETS)
def test_answers_hold_where_nothing_guarded_they_do_not(target: str, case: str, around: Any, noise: Any) -> None:
    model, unguarded, found = around(target, case)
    images = noise(64)
    wanted, bare, held = (logits(each, images) for each in (model, emulated(unguarded), emulated(found.as_half)))
    right = [np.isfinite(each).all(1) & (each.argmax(1) == wanted.argmax(1)) for each in (bare, held)]
    best = np.sort(wanted, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.1  # others are within what rounding does to two logits
    assert clear.mean() > 0.8
    assert np.abs(held - wanted).max() < 0.05
    assert (right[0].mean() < 0.8, right[1][clear].mean()) == (True, 1.0)
    assert np.isfinite(bare).all() == (case == "subnormal")
    assert cosine(wanted, held).min() > 0.9999
    assert [str(f) for f in lint(found.model, get_target(target)) if f.severity == "error"] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", FACTORS)
@pytest.mark.parametrize("target", TARGETS)
def test_where_the_guard_stands(target: str, case: str, around: Any, types_of: Any) -> None:
    model, _, found = around(target, case)
    first, second = (set(quantizable(model)[start::4]) for start in (2, 3))
    ours = found.found
    assert {*ours.overflowing, *ours.subnormal} == ours.nodes >= first | second
    assert getattr(ours, case).keys() >= first | second
    if case == "overflowing":
        assert all(value > 16376 for value in ours.overflowing.values())
    quantized = quantized_products(found.model)
    assert ours.nodes - {name for pairs in quantized.values() for name in pairs} <= set(found.float32_nodes)
    types = types_of(found.model)
    makers = {name: node for node in found.model.graph.node for name in node.output}
    if by_flag(target):  # a float32 graph, in which these products are no int8 and pinned
        assert set(quantized) == set(quantizable(model)) - first - second
        assert FLOAT16 not in types.values()
        return
    assert set(quantized) == set(quantizable(model))
    for node in found.model.graph.node:
        if node.name in quantized:
            wanted = FLOAT if node.name in first | second else FLOAT16
            assert [makers[name].op_type for name in node.input] == [QDQ[1], QDQ[1]]
            scales = {types[makers[name].input[1]] for name in node.input}
            assert {types[node.output[0]], *scales} == {wanted}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-8.5", "trt-11"])
def test_an_ordinary_graph_is_as_it_was(target: str, around: Any) -> None:
    model, unguarded, found = around(target, "ordinary")
    assert found.found == Misfits()
    assert set(quantized_products(found.model)) == set(quantizable(model))
    assert found.as_half.SerializeToString() == unguarded.SerializeToString()
    if by_flag(target):
        assert found.casts == 0
        assert set(found.float32_nodes) == wide_nodes(gs.import_onnx(found.model))
    else:
        assert found.model is found.as_half
        assert found.casts > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-8.5", "trt-11"])
def test_what_is_named_is_in_float32(target: str, graphs: Any, noise: Any, types_of: Any) -> None:
    model = graphs("zero_tprune", target)
    product = quantizable(model)[1]
    layout = Layout(floats=frozenset({product}))  # as the recipe's own nodes are left out of int8
    found = fp16_around(maker(model, noise(2)), layout, [noise(2)], 4.0, {product}, by_flag=by_flag(target))
    assert product in found.float32_nodes
    node = next(node for node in found.as_half.graph.node if node.name == product)
    assert types_of(found.as_half)[node.output[0]] == FLOAT
    assert product not in quantized_products(found.model)
