"""NNCF within vitrim's products: every other node as it was, under its name, and products that go back to float32."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.base import producer
from vitrim.exporter.graph.precision.float_nodes import float_nodes
from vitrim.exporter.graph.precision.nncf_pairs import nncf_restored, with_nncf
from vitrim.exporter.graph.precision.qdq import quantizable
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import run_once


@pytest.fixture(scope="module")
def model(graphs: Any) -> onnx.ModelProto:
    """frugal: it compares, weighs and merges."""
    return graphs("frugal", "openvino")


@pytest.fixture(scope="module")
def quantized(model: onnx.ModelProto, noise: Any) -> onnx.ModelProto:
    return with_nncf(model, quantizable(model), [noise(4)], smooth=True)


def read_through_pairs(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that read a dequantized value."""
    graph = gs.import_onnx(model)
    return {
        node.name
        for node in graph.nodes
        if node.op not in ("QuantizeLinear", "DequantizeLinear")
        if any(producer(tensor, "DequantizeLinear") for tensor in node.inputs)
    }


def test_only_products_are_quantized_and_names_stay(model: Any, quantized: onnx.ModelProto) -> None:
    assert read_through_pairs(quantized) == set(quantizable(model))
    assert {node.name for node in model.graph.node} <= {node.name for node in quantized.graph.node}
    assert [value.name for value in quantized.graph.output] == [value.name for value in model.graph.output]
    assert any(node.name.endswith("/nncf_smooth_quant") for node in quantized.graph.node)
    assert [str(f) for f in lint(quantized, get_target("openvino")) if f.severity == "error"] == []


def test_products_go_back_to_float32_with_what_smoothing_left_before_them(
    model: Any, quantized: onnx.ModelProto, noise: Any
) -> None:
    products, image = quantizable(model), noise(1, seed=3)
    wanted = run_once(model, {"image": image})["logits"]
    found = run_once(nncf_restored(quantized, model, products), {"image": image})["logits"]
    assert np.abs(found - wanted).max() < 1e-4
    half = nncf_restored(quantized, model, products[::2])
    assert read_through_pairs(half) == set(products[1::2])
    assert 1e-4 < np.abs(run_once(half, {"image": image})["logits"] - wanted).max() < np.abs(wanted).max()


def test_nncf_alone_leaves_what_float_nodes_names(model: Any, noise: Any) -> None:
    """The example in docs/precision.md."""
    import nncf

    marked = float_nodes(gs.import_onnx(model))
    names = [name for group in marked.values() for name in group]
    stock = nncf.quantize(
        onnx.ModelProto.FromString(model.SerializeToString()),
        nncf.Dataset([{"image": image[None]} for image in noise(2)]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=2,
        ignored_scope=nncf.IgnoredScope(names=names),
    )
    moves = {node.name for node in stock.graph.node if node.op_type in ("Slice", "Gather", "Reshape", "Transpose")}
    assert not read_through_pairs(with_shapes(stock)) & set(names) - moves
    assert set(quantizable(model)) <= read_through_pairs(with_shapes(stock)) | moves


def test_without_nncf_its_extra_is_named(model: Any, noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[openvino\]'"):
        with_nncf(model, quantizable(model), [noise(1)], smooth=False)


def test_a_failure_of_nncf_is_one_line(model: Any, noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import nncf

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(nncf, "quantize", fails)
    with pytest.raises(UnsupportedError, match=r"NNCF fails on this graph: no such.*operator"):
        with_nncf(model, quantizable(model), [noise(1)], smooth=False)
    assert with_nncf(model, [], [noise(1)], smooth=False).graph.node == model.graph.node
