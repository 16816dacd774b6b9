"""Folding: constants, dead nodes, shared weights, constant outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes import fold_constants as folding

node = helper.make_node
X = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)


def names(model: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def test_equal_weights_are_held_once_and_scalars_stay_scalars(make_graph: Any, rewritten: Any) -> None:
    weights = {"w1": X, "w2": X.copy(), "s": np.float32(2), "v": np.array([2], np.float32), "i": np.array([2])}
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("MatMul", ["a", "w2"], ["b"]),
        node("Mul", ["b", "s"], ["c"]),
        node("Mul", ["c", "v"], ["d"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Add", ["d", "f"], ["y"]),
        node("Relu", ["x"], ["unread"]),
    ]
    result, counts = rewritten(make_graph(nodes, {"x": X}, {"y": (np.float32, (3, 3))}, **weights), {"x": X}, "ort-cpu")
    assert operator_table(result) == {"MatMul": 2, "Mul": 2, "Add": 1}
    assert len({"w1", "w2"} & names(result)) == 1
    assert {"s", "v"} <= names(result) | {"f"}
    assert counts["constants folded"] == 4  # Cast and Relu gone, w2 shared, and f with v
    shapes = sorted(tuple(tensor.dims) for tensor in result.graph.initializer)
    assert shapes == [(), (1,), (3, 3)]


def test_a_constant_output_keeps_its_name_and_value(make_graph: Any, rewritten: Any) -> None:
    nodes = [
        node("Cast", ["ids"], ["kept"], to=6),
        node("Gather", ["x", "kept"], ["rows"], axis=1),
        node("Relu", ["rows"], ["y"]),
    ]
    outputs = {"kept": (np.int32, (2,)), "y": (np.float32, (3, 2))}
    result, _ = rewritten(make_graph(nodes, {"x": X}, outputs, ids=np.array([0, 2])), {"x": X})
    assert operator_table(result)["Identity"] == 1
    assert [output.name for output in result.graph.output] == ["kept", "y"]


def test_a_large_constant_stays_computed(make_graph: Any, rewritten: Any) -> None:
    rows = folding.LARGEST // 4 // 1024 + 1
    nodes = [node("Expand", ["one", "shape"], ["wide"]), node("Add", ["x", "wide"], ["y"])]
    x = np.zeros((1, 1024), np.float32)
    weights = {"one": np.ones((1, 1), np.float32), "shape": np.array([rows, 1024])}
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, (rows, 1024))}, **weights)
    result, _ = rewritten(model, {"x": x}, "ort-cpu")
    assert result.ByteSize() < 10_000
