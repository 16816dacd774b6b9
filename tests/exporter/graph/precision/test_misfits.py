"""Which numbers half precision would harm: what a node writes, reads, multiplies with; pairs and products as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.graph.precision.misfits import Misfits, misfits, quantized_products, whole_units
from vitrim.exporter.graph.precision.qdq import quantizable, with_qdq
from vitrim.exporter.graph.precision.ranges import Extent, extents_of, quantization_ranges
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once

X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
make = helper.make_node


def harmed(model: onnx.ModelProto, half: Any = "fp16", headroom: float = 4.0, wide: Any = ()) -> Misfits:
    return misfits(model, extents_of(model, [X]), half, headroom, wide)


@pytest.fixture
def chain(make_graph: Any) -> Any:
    """(factor, op) -> x @ (W times the factor), an operator, and @ W: a graph of three nodes."""

    def build(factor: float, op: str = "Relu", **constants: np.ndarray) -> onnx.ModelProto:
        nodes = [
            make("MatMul", ["x", "w"], ["a"], "product"),
            make(op, ["a", *constants], ["b"], "middle"),
            make("MatMul", ["b", "v"], ["y"], "back"),
        ]
        held = {"w": W * np.float32(factor), "v": W, **constants}
        return with_shapes(make_graph(nodes, {"x": X}, {"y": (np.float32, (3, 8))}, 20, **held))

    return build


@pytest.mark.parametrize(("factor", "side"), [(2e4, "overflowing"), (1e-7, "subnormal")])
def test_who_writes_and_who_reads_stays_in_float32(factor: float, side: str, chain: Any) -> None:
    model = chain(factor)
    found = harmed(model)
    assert found == Misfits(**{side: getattr(found, side)})
    assert set(getattr(found, side)) == {"product", "middle", "back"} == found.nodes
    a, w = X @ (W * np.float32(factor)), W * np.float32(factor)
    worst = {"overflowing": np.abs(a).max(), "subnormal": np.abs(w).max()}[side]
    assert getattr(found, side)["product"] == pytest.approx(worst, rel=1e-5)
    assert getattr(found, side)["middle"] == pytest.approx(np.abs(a).max(), rel=1e-5) or side == "subnormal"
    assert harmed(model, "bf16").nodes == set()
    assert harmed(model, wide={"product", "middle"}).nodes == {"back"}
    plain = run_once(model, {"x": X})["y"]
    unguarded, guarded = (
        run_once(emulated(to_half(model, "fp16", nodes).model), {"x": X})["y"] for nodes in ((), found.nodes)
    )
    assert not np.abs(unguarded - plain).max() < 0.02 * np.abs(plain).max()  # or NaN
    np.testing.assert_allclose(guarded, plain, rtol=1e-5)


def test_headroom_is_kept_on_both_sides(chain: Any) -> None:
    model = chain(1.0)
    largest = {name: extent.largest for name, extent in extents_of(model, [X]).items()}
    extents = {name: Extent(value, value) for name, value in largest.items()}
    for value, headroom, side in ((16_000, 4, 0), (17_000, 4, 1), (2e-4, 4, 2), (3e-4, 4, 0), (3e-4, 8, 2)):
        found = misfits(model, extents | {"b": Extent(value, value)}, "fp16", headroom, ())
        assert set(found.overflowing) == ({"middle", "back"} if side == 1 else set())
        assert set(found.subnormal) == ({"middle", "back"} if side == 2 else set())
    assert misfits(model, extents | {"b": Extent(0.0, 0.0)}, "fp16", 4, ()).nodes == set()
    assert set(misfits(model, extents | {"b": Extent(1e-6, 9.0)}, "fp16", 4, ()).subnormal) == {"middle", "back"}


@pytest.mark.parametrize(("size", "stays"), [(1.0, False), (1e-4, False), (1e-5, True), (1e-9, True), (7e4, True)])
def test_a_constant_that_rounding_harms(size: float, stays: bool, chain: Any) -> None:
    scale = (np.linspace(0.5, 1, 8) * size).astype(np.float32)
    model = chain(1.0, "Mul", s=scale)
    extents = dict.fromkeys(("a", "b", "y"), Extent(1.0, 1.0))
    assert (misfits(model, extents, "fp16", 4, ()).nodes == {"middle"}) is stays
    added = chain(1.0, "Add", s=scale)
    assert misfits(added, extents, "fp16", 4, ()).nodes == ({"middle"} if size > 65504 else set())


def test_a_sum_may_read_what_is_too_small(make_graph: Any) -> None:
    """LayerScale near 1e-6: its product is rounded once, where it joins the residual stream."""
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "product"),
        make("Mul", ["a", "s"], ["b"], "scale"),
        make("Add", ["x", "b"], ["y"], "residual"),
    ]
    scale = np.full(8, 1e-6, np.float32)
    model = with_shapes(make_graph(nodes, {"x": X}, {"y": (np.float32, (3, 8))}, 20, w=W, s=scale))
    assert set(harmed(model).subnormal) == {"scale"}


def test_few_small_values_in_a_large_constant_are_none(chain: Any) -> None:
    scale = np.array([1, 1, 1, 1, 1, 1, 1e-7, 0], np.float32)
    extents = dict.fromkeys(("a", "b", "y"), Extent(1.0, 1.0))
    assert misfits(chain(1.0, "Mul", s=scale), extents, "fp16", 4, ()).nodes == set()
    assert misfits(chain(1.0, "Mul", s=np.zeros(8, np.float32)), extents, "fp16", 4, ()).nodes == set()


def quantized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    ranges = quantization_ranges(model, [images], "minmax", symmetric=True)
    return with_qdq(model, ranges, quantizable(model), "tensorrt")


def test_a_scale_that_becomes_nothing_takes_its_pair_along(graphs: Any, noise: Any) -> None:
    model = graphs("zero_tprune", "trt-11")
    product = quantizable(model)[2]
    weight = next(node.input[1] for node in model.graph.node if node.name == product)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[:, 3] *= 1e-8  # one column; the others are as they were
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
    int8 = quantized(model, noise(1))
    wide = wide_nodes(gs.import_onnx(int8))
    found = misfits(int8, extents_of(int8, [noise(1)]), "fp16", 4.0, wide)
    products = quantized_products(int8)
    assert set(products) == set(quantizable(model))
    assert len(found.nodes) == 2
    assert found.nodes < products[product]
    assert found.overflowing == {}
    assert all(value < 7e-6 for value in found.subnormal.values())
    assert whole_units(products, found.nodes) == {product, *products[product]}
    assert len(products[product]) == 4


def test_products_that_share_a_pair_are_one_unit() -> None:
    products = {"q": {"x", "wq"}, "k": {"x", "wk"}, "v": {"v", "wv"}}
    assert whole_units(products, {"wk", "else"}) == {"else", "k", "x", "wk", "q", "wq"}
    assert whole_units(products, {"v"}) == {"v", "wv"}
    assert whole_units(products, ()) == set()


def test_an_ordinary_model_has_none(graphs: Any, noise: Any) -> None:
    model = graphs("frugal", "trt-11")
    for each in (model, quantized(model, noise(2))):
        assert misfits(each, extents_of(each, [noise(2)]), "fp16", 4.0, wide_nodes(gs.import_onnx(each))) == Misfits()
