"""What a pass says of itself, and how a pattern is applied: once a node, with reasons, never on the caller's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph import surgery
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.passes.base import (
    Builder,
    Context,
    Names,
    PassReport,
    PatternPass,
    constant,
    numpy_dtype,
    onnx_type,
    scalar,
    static_shape,
    through,
)
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.surgery import aside, import_graph

node = helper.make_node
X = np.ones((2, 300), np.float32)
HERE = Context(get_target("ort-cpu"))


def match(found: gs.Node, context: Context) -> gs.Node | str | None:
    """Every Neg but that of an output, and none behind another Neg."""
    if found.outputs[0].name in context.outputs:
        return "it is an output"
    return None if found.inputs[0].inputs and found.inputs[0].inputs[0].op == "Abs" else found


def apply(graph: gs.Graph, found: gs.Node, context: Context) -> None:
    found.op = "Abs"


TURN = PatternPass("negatives turned", frozenset({"Neg"}), match, apply)


def test_matches_are_rewritten_and_reasons_kept(make_graph: Any) -> None:
    nodes = [node("Neg", ["x"], ["a"], name="first"), node("Neg", ["a"], ["b"], name="second")]
    nodes.append(node("Neg", ["b"], ["y"], name="third"))
    model = make_graph(nodes, {"x": X}, {"y": (np.float32, X.shape)})
    before = model.SerializeToString()
    changed, report = TURN.run(model, HERE)
    assert model.SerializeToString() == before
    assert [each.op_type for each in changed.graph.node] == ["Abs", "Neg", "Neg"]
    assert report.count == 1
    assert report.skipped == [("third", "it is an output")]
    assert HERE.after(report).reasons == {"third": "it is an output"}
    assert HERE.reasons == {}


def test_a_pass_that_is_not_wanted_or_has_no_root_gives_the_model_back(make_graph: Any) -> None:
    model = make_graph([node("Neg", ["x"], ["a"]), node("Exp", ["a"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
    unwanted = PatternPass("p", frozenset({"Neg"}), match, apply, lambda context: context.target.name == "trt-11")
    rootless = PatternPass("p", frozenset({"Sin"}), match, apply)
    for each in (unwanted, rootless):
        same, report = each.run(model, HERE)
        assert same is model
        assert report.count == 0
    assert unwanted.run(model, Context(get_target("trt-11")))[1].count == 1


def test_a_graph_is_handed_on_and_gets_the_shapes_that_were_inferred(
    make_graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [node("Exp", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Exp", ["b"], ["y"])]
    model, read = make_graph(nodes, {"x": X}, {"y": (np.float32, X.shape)}), list[onnx.ModelProto]()
    monkeypatch.setattr(
        surgery, "import_graph", lambda model, weights: read.append(model) or import_graph(model, weights)
    )
    context, seen = Context(get_target("ort-cpu")), list[tuple[Any, Any]]()
    look = PatternPass("p", frozenset({"Abs", "Neg"}), lambda each, _: seen.append(about(each)), apply)
    for _ in range(3):
        assert look.run(model, context)[0] is model
    changed, _ = TURN.run(model, context)
    assert [each.op_type for each in model.graph.node] == ["Exp", "Neg", "Exp"]
    look.run(with_shapes(changed), context)
    assert read == [model]
    assert seen == [(None, None)] * 3 + [(np.float32, [2, 300])]
    again, _ = TURN.run(model, context)  # whoever comes back to the first model reads it anew
    assert with_shapes(again).SerializeToString() == changed.SerializeToString()
    assert [each is model for each in read] == [True, True]


def about(found: gs.Node) -> tuple[Any, Any]:
    return found.outputs[0].dtype, found.outputs[0].shape


def test_a_report_is_plain_data() -> None:
    report = PassReport("p", 2, [("n", "why")], (5, 3), 1e-6, 1, 0.5)
    told = {"name": "p", "count": 2, "nodes": [5, 3], "max_abs": 1e-6, "near_ties": 1, "skipped": ["n: why"]}
    assert report.to_dict() == told


@pytest.fixture
def graph(make_graph: Any) -> gs.Graph:
    """Constants as initializers and as nodes."""
    held = numpy_helper.from_array(np.array([3]), "held")
    nodes = [
        node("Constant", [], ["k"], value=held),
        node("Reshape", ["x", "shape"], ["r"]),
        node("Squeeze", ["r", "k"], ["s"]),
        node("Mul", ["s", "factor"], ["y"]),
    ]
    shape = (2, 3, 100)
    weights = {"shape": np.array([2, 3, 100, 1]), "factor": np.array([2.5], np.float32)}
    return import_graph(make_graph(nodes, {"x": X}, {"y": (np.float32, shape)}, **weights))


def test_constants_and_scalars(graph: gs.Graph) -> None:
    tensors = graph.tensors()
    values = {name: constant(tensor) for name, tensor in tensors.items()}
    assert {name: value.tolist() for name, value in values.items() if value is not None} == {
        "k": [3],
        "shape": [2, 3, 100, 1],
        "factor": [2.5],
    }
    found = {name: scalar(tensor) for name, tensor in tensors.items()}
    assert {name: value for name, value in found.items() if value is not None} == {"k": 3, "factor": 2.5}


def test_a_large_weight_is_no_scalar_and_stays_beside_the_graph(make_graph: Any, tmp_path: Path) -> None:
    weights = {"w": np.ones((300, 300), np.float32)}
    with WeightStore(tmp_path) as store:
        model = make_graph([node("MatMul", ["x", "w"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)}, **weights)
        store.save(model, "m.onnx")
    weight = import_graph(*read_bare(tmp_path / "m.onnx")).tensors()["w"]
    value = constant(weight)
    assert scalar(weight) is None
    assert value is not None
    assert (value == 1).all()
    assert aside(weight) is not None


def test_shapes_and_types() -> None:
    assert static_shape(gs.Variable("a", shape=[2, np.int64(3)])) == [2, 3]
    assert static_shape(gs.Variable("a", shape=[2, "n"])) is None
    assert static_shape(gs.Variable("a")) is None
    assert numpy_dtype(gs.Variable("a", dtype=np.float16)) == np.float16
    assert numpy_dtype(gs.Variable("a", dtype=16)) is None  # bfloat16
    assert onnx_type(np.int32) == 6


def test_the_way_up_through_nodes(graph: gs.Graph) -> None:
    above = through(graph.outputs[0], "Mul", "Squeeze")
    assert above.name == "r"
    assert through(above, "Squeeze") is above


def test_names_are_fresh_and_nodes_take_over_outputs(graph: gs.Graph) -> None:
    graph.nodes[0].name = "p_x_1"
    assert Names(graph, "p")("x") == "p_x_2"
    build, out = Builder(graph, "p"), graph.outputs[0]
    made = build.node("Neg", [graph.tensors()["s"]], [2, 3, 100], np.float32, out, axis=1)
    assert made is out
    assert [each.op for each in out.inputs] == ["Neg"]
    assert build.const(2, "int64").values.dtype == np.int64
