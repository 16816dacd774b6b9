"""Folding: constants, dead nodes, shared weights, constant outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes import fold_constants as folding
from vitrim.exporter.graph.passes.base import Context
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.verify import run_once
from vitrim.exporter.graph.weights import is_external

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


def test_whether_there_is_something_to_fold_is_asked_before_the_graph_is_copied(
    make_graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Cast of x and weights with readers are nothing, a Cast before and after one node is."""
    asked = list[str]()
    monkeypatch.setattr(gs.Graph, "fold_constants", lambda graph, **_: asked.append(graph.name))
    here, integers = Context(get_target("ort-cpu")), X.astype(np.int64)
    plain = [node("Cast", ["x"], ["a"], to=1), node("MatMul", ["a", "w"], ["y"])]
    model = make_graph(plain, {"x": integers}, {"y": (np.float32, (3, 3))}, w=X)
    assert folding.FOLD.run(model, here)[1].count == 0
    assert asked == []
    around = [node("Cast", ["x"], ["a"], to=1), node("Add", ["a", "w"], ["b"]), node("Cast", ["b"], ["y"], to=7)]
    folding.FOLD.run(make_graph(around, {"x": integers}, {"y": (np.int64, (3, 3))}, w=X), here)
    assert len(asked) == 1
    folded = [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"])]
    folding.FOLD.run(make_graph(folded, {"x": X}, {"y": (np.float32, (3, 3))}), here)
    assert len(asked) == 2


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


def beside(model: onnx.ModelProto, folder: Path) -> Any:
    with WeightStore(folder) as store:
        store.save(model, "m.onnx")
    return read_bare(folder / "m.onnx")


def test_of_weights_beside_the_graph_only_those_that_are_computed_with_are_read(
    make_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = np.ones((1, 100), np.float32), np.random.default_rng(1).standard_normal((3, 200, 200)).astype(np.float32)
    nodes = [
        node("Transpose", ["turned"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["a"]),
        node("MatMul", ["a", "plain"], ["b"]),
        node("MatMul", ["b", "twin"], ["c"]),
        node("QuantizeLinear", ["quantized", "s"], ["q"]),
        node("DequantizeLinear", ["q", "s"], ["d"]),
        node("MatMul", ["c", "d"], ["y"]),
    ]
    held = {"turned": w[0, :, :100], "plain": w[1], "twin": w[1].copy(), "quantized": w[2], "s": np.float32(0.1)}
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, (1, 200))}, **held)
    bare, weights = beside(model, tmp_path)
    read: list[str] = []
    array = weights.array
    monkeypatch.setattr(weights, "array", lambda tensor: read.append(tensor.name) or array(tensor))
    result, report = folding.FOLD.run(bare, Context(get_target("ort-cpu"), weights=weights))
    assert read == ["turned"]
    assert report.count == 2  # the Transpose, and the twin
    outside = {tensor.name for tensor in result.graph.initializer if is_external(tensor)}
    assert outside == {"plain", "quantized"}
    assert operator_table(result)["QuantizeLinear"] == 1
    whole, _ = folding.FOLD.run(model, Context(get_target("ort-cpu")))
    old, new = run_once(whole, {"x": x})["y"], run_once(result, {"x": x}, weights)["y"]
    assert old.tobytes() == new.tobytes()


def test_a_weight_that_is_read_but_not_folded_stays_beside_the_graph(
    make_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "LARGEST", 1000)
    x, w = np.ones((1, 200), np.float32), np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])]
    bare, weights = beside(make_graph(nodes, {"x": x}, {"y": (np.float32, (1, 200))}, w=w), tmp_path)
    result, report = folding.FOLD.run(bare, Context(get_target("ort-cpu"), weights=weights))
    assert report.count == 0
    assert [tensor.name for tensor in result.graph.initializer if is_external(tensor)] == ["w"]


def test_a_weight_inside_finds_its_twin_beside(make_graph: Any, tmp_path: Path) -> None:
    x, w = np.ones((1, 200), np.float32), np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])]
    bare, weights = beside(make_graph(nodes, {"x": x}, {"y": (np.float32, (1, 200))}, w=w, v=w + 1), tmp_path)
    bare.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(w, "v"))
    result, report = folding.FOLD.run(bare, Context(get_target("ort-cpu"), weights=weights))
    assert report.count == 1
    assert len(result.graph.initializer) == 1
