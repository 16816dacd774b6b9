"""Shapes of every value, inferred without the data of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.shapes import with_shapes, without_weights
from vitrim.exporter.graph.store import WeightStore

X = np.ones((2, 300), np.float32)
node = helper.make_node


def product(make_graph: Any, rows: int = 300) -> onnx.ModelProto:
    """A product, and a reshape to a shape that is computed from constants."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Concat", ["two", "rest"], ["shape"], axis=0),
        node("Reshape", ["p", "shape"], ["r"]),
        node("Neg", ["r"], ["y"]),
    ]
    weights = {"w": np.ones((rows, 100), np.float32), "two": np.array([2]), "rest": np.array([10, 10])}
    return make_graph(nodes, {"x": X}, {"y": (np.float32, (2, 10, 10))}, **weights)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    values = (*model.graph.value_info, *model.graph.output)
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


@pytest.mark.parametrize("beside", [True, False])
def test_every_value_gets_its_shape_wherever_the_weights_are(beside: bool, make_graph: Any, tmp_path: Path) -> None:
    model = product(make_graph)
    if beside:
        with WeightStore(tmp_path) as store:
            store.save(model, "m.onnx")
        model, _ = read_bare(tmp_path / "m.onnx")
    assert with_shapes(model) is model
    assert shapes_of(model) == {"p": [2, 100], "shape": [3], "r": [2, 10, 10], "y": [2, 10, 10]}
    assert len(model.graph.initializer) == 3


def test_large_weights_lose_their_data_and_small_ones_keep_it(make_graph: Any) -> None:
    model = product(make_graph)
    bare = without_weights(model)
    held = {tensor.name: tensor for tensor in bare.graph.initializer}
    assert not held["w"].raw_data
    assert (list(held["w"].dims), held["w"].data_type) == ([300, 100], onnx.TensorProto.FLOAT)
    assert onnx.numpy_helper.to_array(held["rest"]).tolist() == [10, 10]
    assert len(model.graph.initializer[0].raw_data) == 4 * 300 * 100


def test_old_shapes_go_but_for_those_that_nothing_can_infer(make_graph: Any) -> None:
    value = helper.make_tensor_value_info
    nodes = [
        node("FastGelu", ["x"], ["g"], domain="com.microsoft"),
        node("Relu", ["g"], ["r"]),
        node("Abs", ["r"], ["y"]),
    ]
    model = make_graph(nodes, {"x": X}, {"y": (np.float32, X.shape)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.extend(value(name, onnx.TensorProto.FLOAT, [2, 300]) for name in ("g", "r"))
    assert [kept.name for kept in without_weights(model).graph.value_info] == ["g"]
    assert shapes_of(with_shapes(model)) == {key: [2, 300] for key in "gry"}


def test_shapes_that_contradict_are_one_line(make_graph: Any) -> None:
    with pytest.raises(UnsupportedError, match="^the graph's shapes do not fit together: .*Incompatible dimensions"):
        with_shapes(product(make_graph, rows=301))
