"""Graphs taken apart at nodes: what is left is a graph that onnxruntime runs, and a node alone is one, too."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.graph.lint.cut import alone, cut, name_nodes, typed_values

F = TensorProto.FLOAT
value, node = helper.make_tensor_value_info, helper.make_node


def chain() -> onnx.ModelProto:
    """x -> a = x w -> b = relu -> c = b + a -> y, and a second output of a."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="product"),
        node("Relu", ["a"], ["b"]),
        node("Add", ["b", "a"], ["c"], name="sum"),
        node("Neg", ["c"], ["y"], name="sum"),
    ]
    weights = [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")]
    graph = helper.make_graph(nodes, "g", [value("x", F, [1, 3])], [value("y", F, [1, 3])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branching() -> onnx.ModelProto:
    branches = {
        name: helper.make_graph([node(op, ["x"], [name], name=f"in_{name}")], name, [], [value(name, F, [1, 3])])
        for name, op in (("then", "Abs"), ("other", "Neg"))
    }
    choice = node("If", ["c"], ["m"], name="choice", then_branch=branches["then"], else_branch=branches["other"])
    graph = helper.make_graph(
        [choice, node("Relu", ["m"], ["y"], name="last")],
        "g",
        [value("c", TensorProto.BOOL, []), value("x", F, [1, 3])],
        [value("y", F, [1, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_every_node_gets_a_name_of_its_own_that_people_know() -> None:
    model = chain()
    known = name_nodes(model)
    assert [each.name for each in model.graph.node] == ["product", "b", "sum", "sum~2"]
    assert known == {"product": "product", "b": "b", "sum": "sum", "sum~2": "sum"}
    inner = branching()
    assert set(name_nodes(inner)) == {"choice", "in_then", "in_other", "last"}


def test_what_a_cut_node_makes_comes_in_and_what_it_reads_goes_out() -> None:
    model = chain()
    name_nodes(model)
    assert cut(model, {"b"}, typed_values(model))
    assert [each.name for each in model.graph.node] == ["product", "sum", "sum~2"]
    assert [each.name for each in model.graph.input] == ["x", "b"]
    assert [each.name for each in model.graph.output] == ["y", "a"]
    ones = np.ones((1, 3), np.float32)
    y, a = run(model, x=ones, b=2 * ones)
    assert np.array_equal(a, ones)
    assert np.array_equal(y, -3 * ones)


def test_the_last_node_leaves_what_it_read() -> None:
    model = chain()
    name_nodes(model)
    assert cut(model, {"sum~2"}, typed_values(model))
    assert [each.name for each in model.graph.output] == ["c"]
    run(model, x=np.ones((1, 3), np.float32))


def test_a_node_in_a_branch_takes_its_whole_if_along() -> None:
    model = branching()
    name_nodes(model)
    assert cut(model, {"in_other"}, typed_values(model))
    assert [each.name for each in model.graph.node] == ["last"]
    assert [each.name for each in model.graph.input] == ["c", "x", "m"]


@pytest.mark.parametrize("names", [{"graph"}, {"x"}, {"product", "b", "sum", "sum~2"}, {"product", "nothing"}])
def test_where_nothing_can_be_cut_nothing_is_changed(names: set[str]) -> None:
    model = chain()
    name_nodes(model)
    before = model.SerializeToString()
    assert not cut(model, names, typed_values(model))
    assert model.SerializeToString() == before


def test_a_value_of_unknown_type_is_no_input() -> None:
    model = chain()
    name_nodes(model)
    assert not cut(model, {"b"}, {})
    assert alone(model, "b", {}) is None
    assert alone(model, "nothing", {}) is None


def test_one_node_alone_is_a_model_with_its_weights() -> None:
    model = chain()
    name_nodes(model)
    found = alone(model, "product", typed_values(model))
    assert found is not None
    (a,) = run(found, x=np.full((1, 3), 5, np.float32))
    assert a.tolist() == [[5, 5, 5]]
