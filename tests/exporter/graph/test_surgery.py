"""Graphs with links both ways, whose weights beside the file are never carried along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.surgery import aside, copy_of, export_graph, import_graph, peek, raise_opset
from vitrim.exporter.graph.weights import Weights, is_external

X = np.ones((1, 200), np.float32)
W = np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32)


@pytest.fixture
def bare(make_graph: Any, tmp_path: Path) -> tuple[onnx.ModelProto, Weights]:
    """A product with a weight beside the graph, and a bias in it."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    model = make_graph(nodes, {"x": X}, {"y": (np.float32, (1, 200))}, w=W, b=np.ones(200, np.float32))
    model.metadata_props.add(key="vitrim.kind", value="dense")
    with WeightStore(tmp_path) as store:
        store.save(model, "m.onnx")
    return read_bare(tmp_path / "m.onnx")


def test_weights_stay_beside_the_graph_however_often_they_are_looked_at(bare: Any) -> None:
    model, weights = bare
    graph = import_graph(model, weights)
    weight, bias = (graph.tensors()[name] for name in ("w", "b"))
    assert aside(bias) is None
    assert aside(graph.inputs[0]) is None
    for _ in range(2):
        np.testing.assert_array_equal(peek(weight), W)
    assert not peek(weight).flags.owndata
    assert aside(weight) is not None
    written = export_graph(graph, model)
    assert [tensor.name for tensor in written.graph.initializer if is_external(tensor)] == ["w"]
    assert written.ByteSize() < 2000
    assert [entry.key for entry in written.metadata_props] == ["vitrim.kind"]
    assert written.ir_version == model.ir_version


def test_a_copy_of_a_graph_shares_them(bare: Any) -> None:
    graph = import_graph(*bare).copy()
    assert aside(graph.tensors()["w"]) is not None


def test_a_new_weight_is_in_the_graph(bare: Any) -> None:
    model, weights = bare
    graph = import_graph(model, weights)
    product = graph.nodes[0]
    product.inputs[1] = gs.Constant("twice", 2 * peek(product.inputs[1]))
    written = export_graph(graph.cleanup(), model)
    held = {tensor.name: tensor for tensor in written.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(held["twice"]), 2 * W)
    assert "w" not in held


def test_weights_that_nobody_says_where_are_one_line(bare: Any) -> None:
    graph = import_graph(bare[0])
    with pytest.raises(InputError, match="^the weight w is in a file beside the graph; say where that is$"):
        peek(graph.tensors()["w"])
    export_graph(graph, bare[0])  # nobody looked


def test_the_caller_s_opsets_stay_and_the_graph_s_rise(bare: Any) -> None:
    model = copy_of(bare[0])
    graph = import_graph(model, bare[1])
    raise_opset(graph, 23)
    graph.nodes[1].domain = "com.microsoft"
    written = export_graph(graph, model)
    assert {entry.domain: entry.version for entry in written.opset_import} == {"": 23, "com.microsoft": 1}
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20}
    raise_opset(graph, 22)
    assert graph.opset == 23


def test_constants_inside_of_nodes_and_branches_are_found(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [200, 200])
    (tmp_path / "w.data").write_bytes(W.tobytes())
    tensor = onnx.TensorProto(name="c", data_type=1, dims=W.shape, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.data")
    constant = helper.make_node("Constant", [], ["o"], value=tensor)
    branches = [helper.make_graph([constant], "b", [], [value])] * 2
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
    ends = [helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])], [value]
    graph = import_graph(helper.make_model(helper.make_graph(nodes, "g", *ends)), Weights(tmp_path))
    for inner in graph.subgraphs():
        np.testing.assert_array_equal(peek(inner.nodes[0].attrs["value"]), W)
