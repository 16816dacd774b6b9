"""What lint's checks look up: constants, types, ranks, readers, and data that is beside the graph or damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.lint.facts import Finding, Known, all_nodes, attribute, damage, has_data, name_of, opset_of
from vitrim.exporter.graph.store import WeightStore

node = helper.make_node
F = TensorProto.FLOAT


def model_of(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, F, [2, 300]) for name in "xy"]
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    opsets = [helper.make_opsetid("com.x", 3), helper.make_opsetid("", 18)]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held), opset_imports=opsets)


def test_a_model_is_looked_through_once() -> None:
    k = numpy_helper.from_array(np.array([3]), "v")
    nodes = [
        node("Constant", [], ["k"], value=k),
        node("Constant", [], ["f"], value_float=1.0),
        node("MatMul", ["x", "w"], ["p"]),
        node("Add", ["p", "x"], ["y"]),
    ]
    known = Known.of(model_of(nodes, w=np.ones((300, 300), np.float16)))
    assert known.opset == 18
    assert set(known.constants) == {"k", "f", "w"}
    assert known.types == {"w": "FLOAT16", "x": "FLOAT", "y": "FLOAT"}
    assert known.ranks == {"w": 2, "x": 2, "y": 2}
    assert [reader.op_type for reader in known.readers["x"]] == ["MatMul", "Add"]
    value = known.value("k")
    assert value is not None
    assert value.tolist() == [3]
    assert known.value("f") is None
    assert known.value("nothing") is None


def test_data_beside_the_graph_is_not_here_but_integers_always_are(tmp_path: Path) -> None:
    indices = np.arange(90_000)
    model = model_of([node("MatMul", ["x", "w"], ["y"])], w=np.ones((300, 300), np.float32), i=indices)
    with WeightStore(tmp_path) as store:
        store.save(model, "m.onnx")
    bare, _ = read_bare(tmp_path / "m.onnx")
    known = Known.of(bare)
    assert known.value("w") is None
    found = known.value("i")
    assert found is not None
    np.testing.assert_array_equal(found, indices)
    assert [has_data(tensor) for tensor in bare.graph.initializer] == [False, True]
    assert [has_data(tensor) for tensor in model.graph.initializer] == [True, True]


def test_damaged_data_is_told() -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    assert damage(tensor) == ""
    tensor.raw_data = tensor.raw_data[:-3]
    assert "buffer size must be a multiple of element size" in damage(tensor)
    known = Known(constants={"w": tensor})
    assert known.value("w") is None


def test_small_things() -> None:
    pick = node("TopK", ["x", "k"], ["v", "i"], axis=1)
    assert (name_of(pick), attribute(pick, "axis"), attribute(pick, "sorted", 7)) == ("v", 1, 7)
    assert opset_of(onnx.ModelProto()) is None
    finding = Finding("n", "Op", "error", "it is bad", "mend it")
    assert str(finding) == "error: Op n: it is bad; mend it"
    assert finding.to_dict()["remedy"] == "mend it"


def test_nodes_of_branches_are_nodes_too() -> None:
    value = helper.make_tensor_value_info("o", F, [1])
    inner = helper.make_graph([node("Identity", ["x"], ["o"])], "b", [], [value])
    branch = node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert [each.op_type for each in all_nodes(model_of([branch]).graph)] == ["If", "Identity", "Identity"]
