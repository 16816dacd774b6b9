"""Channels evened out: the same answers, and activations whose channels are more alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.graph.precision.equalize import channel_maxima, equalize, normalized_products
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once, with_outputs

make = helper.make_node


def uneven(model: onnx.ModelProto) -> list[str]:
    """Make some channels of every normalization before a product 50 times larger; returns what the products read."""
    found, done = [], set()
    graph = gs.import_onnx(model)
    for tensor in normalized_products(graph):
        found.append(tensor)
        norm = graph.tensors()[tensor].inputs[0]
        scaled = norm if norm.op == "LayerNormalization" else next(t.inputs[0] for t in norm.inputs if t.inputs)
        name = next(t.name for t in scaled.inputs if isinstance(t, gs.Constant) and t.values.ndim == 1)
        if name in done:  # normalizations that start alike share their factors
            continue
        done.add(name)
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[::7] *= 50
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "target", "read", "products"),
    [("zero_tprune", "trt-8.5", 4, 4), ("tome", "ort-cpu", 4, 4), ("ats", "ort-cpu", 6, 8)],
)
def test_the_same_answers_from_evener_channels(
    method: str, target: str, read: int, products: int, graphs: Any, noise: Any
) -> None:
    """Products of both blocks: qkv and fc1; or keys and values with the query that scores, other queries, and fc1."""
    model, images = graphs(method, target), noise(2)
    tensors = uneven(model)
    assert len(tensors) == read
    before, maxima = model.SerializeToString(), channel_maxima(model, tensors, [images])
    even, count = equalize(model, maxima)
    assert (count, model.SerializeToString()) == (products, before)
    onnx.checker.check_model(even, full_check=True)
    after = channel_maxima(with_shapes(even), tensors, [images])
    for name in tensors:
        old, new = maxima[name], after[name]
        assert new.max() / np.median(new) < 0.4 * old.max() / np.median(old)
        assert new.max() / new.min() < 0.5 * old.max() / old.min()
    old, new = (run_once(m, {"image": images[:1]}) for m in (model, even))
    scale = np.abs(old["logits"]).max()
    np.testing.assert_allclose(new["logits"], old["logits"], rtol=0, atol=1e-5 * max(scale, 1))
    assert np.sort(old["kept_1"]).tolist() == np.sort(new["kept_1"]).tolist()


@pytest.mark.slow
def test_maxima_are_numpy_s_whatever_the_rank(families: Any, noise: Any) -> None:
    """Swin's tokens are a grid."""
    model, _ = families("swin")
    images = noise(3, 56)
    tensors = list(normalized_products(gs.import_onnx(model)))
    found = channel_maxima(model, tensors, [images[:1], images[1:]])
    seen = [run_once(with_outputs(model, tensors), {"image": images[i : i + 1]}) for i in range(3)]
    assert {found[name].ndim for name in tensors} == {1}
    assert max(seen[0][name].ndim for name in tensors) == 4
    for name in tensors:
        wanted = np.max([np.abs(each[name]).reshape(-1, len(found[name])).max(0) for each in seen], axis=0)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)
    even, count = equalize(model, found)
    assert count >= len(tensors) > 0
    old, new = (run_once(m, {"image": images[:1]})["logits"] for m in (model, even))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-5 * max(1, np.abs(old).max()))


def small(outputs: tuple[str, ...] = ("y",), more: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """x -> LayerNormalization -> product, with more readers or outputs."""
    draw = np.random.default_rng(0)
    nodes = [
        make("LayerNormalization", ["x", "gamma", "beta"], ["n"], "norm", axis=-1),
        make("MatMul", ["n", "w"], ["y"], "product"),
        *more,
    ]
    weights = {
        "gamma": draw.standard_normal(6).astype(np.float32),
        "beta": np.ones(6, np.float32),
        "w": draw.standard_normal((6, 6)).astype(np.float32),
        "v": draw.standard_normal((6, 6)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([-1]),
    }
    inner = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 5, 6])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    used = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used]
    graph = helper.make_graph(nodes, "g", [inner], ends, held)
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_factors_are_smoothquant_s() -> None:
    model = small()
    largest = np.array([4.0, 1, 1, 9, 1, 100], np.float32)
    even, count = equalize(model, {"n": largest})
    assert count == 1
    names = [name for node in even.graph.node for name in node.input]
    held = {t.name: numpy_helper.to_array(t) for t in even.graph.initializer}
    old = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    new = dict(zip(("gamma", "beta", "w"), (held[name] for name in names if name in held), strict=True))
    factors = np.sqrt(largest / np.abs(old["w"]).max(axis=1))
    factors /= np.exp(np.log(factors).mean())
    np.testing.assert_allclose(new["gamma"], old["gamma"] / factors, rtol=1e-5)
    np.testing.assert_allclose(new["beta"], old["beta"] / factors, rtol=1e-5)
    np.testing.assert_allclose(new["w"], old["w"] * factors[:, None], rtol=1e-5)


def test_dead_channels_stay_finite() -> None:
    even, _ = equalize(small(), {"n": np.array([0, 1e-30, 1, 1, 1, 1], np.float32)})
    assert all(np.isfinite(numpy_helper.to_array(t)).all() for t in even.graph.initializer)


ROWS = make("Slice", ["n", "zero", "one", "one"], ["r"], "rows")
OTHER = make("MatMul", ["n", "v"], ["z"], "other")


@pytest.mark.parametrize(
    ("more", "outputs"),
    [
        ((make("Neg", ["n"], ["z"], "other"),), ("y", "z")),
        ((make("Slice", ["n", "zero", "one", "last"], ["z"], "channels"),), ("y", "z")),
        ((ROWS, make("Neg", ["r"], ["z"], "other")), ("y", "z")),
        ((ROWS, make("MatMul", ["r", "v"], ["z"], "other")), ("y", "z", "r")),
        ((), ("y", "n")),
    ],
)
def test_what_others_read_is_left_alone(more: tuple[onnx.NodeProto, ...], outputs: tuple[str, ...]) -> None:
    model = small(outputs, more)
    assert normalized_products(gs.import_onnx(model)) == {}
    same, count = equalize(model, {"n": np.ones(6, np.float32)})
    assert count == 0
    old, new = ({t.name: t.raw_data for t in each.graph.initializer} for each in (model, same))
    assert new == old


@pytest.mark.parametrize("more", [(OTHER,), (ROWS, make("MatMul", ["r", "v"], ["z"], "other"))])
def test_products_that_read_one_normalization_share_its_factors(more: tuple[onnx.NodeProto, ...]) -> None:
    model, largest = small(("y", "z"), more), np.array([4.0, 1, 1, 9, 1, 100], np.float32)
    assert [node.name for node in normalized_products(gs.import_onnx(model))["n"]] == ["product", "other"]
    even, count = equalize(model, {"n": largest})
    assert count == 2
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    factors = np.sqrt(largest / np.maximum(*(np.abs(held[name]).max(axis=1) for name in "wv")))
    factors /= np.exp(np.log(factors).mean())
    new = {t.name: numpy_helper.to_array(t) for t in even.graph.initializer}
    weights = {node.name: new[node.input[1]] for node in even.graph.node if node.op_type == "MatMul"}
    for name, old in (("product", "w"), ("other", "v")):
        np.testing.assert_allclose(weights[name], held[old] * factors[:, None], rtol=1e-5)
    x = np.random.default_rng(1).standard_normal((1, 5, 6)).astype(np.float32)
    before, after = (run_once(m, {"x": x}) for m in (model, even))
    for name in ("y", "z"):
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-5 * np.abs(before[name]).max())


def test_a_constant_that_others_read_keeps_its_value() -> None:
    """Normalizations that were initialized alike have one constant in the graph."""
    model = small(("y", "z"), (make("Mul", ["x", "gamma"], ["z"], "another"),))
    even, count = equalize(model, {"n": np.array([4.0, 1, 1, 9, 1, 100], np.float32)})
    assert count == 1
    x = np.random.default_rng(1).standard_normal((1, 5, 6)).astype(np.float32)
    old, new = (run_once(m, {"x": x}) for m in (model, even))
    assert np.array_equal(old["z"], new["z"])
    np.testing.assert_allclose(new["y"], old["y"], rtol=0, atol=1e-5 * np.abs(old["y"]).max())
