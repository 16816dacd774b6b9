"""What OpenVINO says of small graphs, node by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import doubler

from vitrim.exporter.runtime.openvino.answer import answer

pytest.importorskip("openvino")
F, I64 = TensorProto.FLOAT, TensorProto.INT64
value, node = helper.make_tensor_value_info, helper.make_node


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # `answer` goes to the folder of the graph


def serialized(nodes: list, inputs: list, outputs: list, **weights: np.ndarray) -> bytes:
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_graph_is_compiled_in_memory() -> None:
    found = answer(doubler(), "")
    assert (found.parsed, found.built, found.refused, found.size) == (True, True, (), 0)
    assert found.kernels >= 1
    assert found.by.startswith("OpenVINO 20")


def test_operators_without_a_rule_are_named() -> None:
    nodes = [node("Det", ["x"], ["a"]), node("Relu", ["x"], ["b"]), node("StringConcat", ["t", "t"], ["c"])]
    inputs = [value("x", F, [3, 3]), value("t", TensorProto.STRING, [2])]
    outputs = [value("a", F, []), value("b", F, [3, 3]), value("c", TensorProto.STRING, [2])]
    found = answer(serialized(nodes, inputs, outputs), "")
    assert not found.parsed
    assert {(each.by, each.node, each.op) for each in found.refused} == {
        ("parser", "graph", "Det"),
        ("parser", "graph", "StringConcat"),
    }


def test_a_node_whose_rule_fails_is_named_with_the_reason() -> None:
    pick = node("TopK", ["x", "x"], ["y", "i"], name="/pick")
    data = serialized([pick], [value("x", F, [3, 3])], [value("y", F, [3, 3]), value("i", I64, [3, 3])])
    (refusal,) = answer(data, "").refused
    assert (refusal.node, refusal.op) == ("/pick", "TopK")
    assert refusal.what == "ONNX TopK operator: 'K' input must be a scalar or 1D tensor."


def test_what_the_plugin_refuses_is_the_builder_s() -> None:
    texts = [value(name, TensorProto.STRING, [2]) for name in "xy"]
    same = value("z", TensorProto.BOOL, [2])
    found = answer(serialized([node("Equal", ["x", "y"], ["z"])], texts, [same]), "")
    (refusal,) = found.refused
    assert (found.parsed, refusal.by, "string" in refusal.what) == (True, "builder", True)


def test_weights_in_a_file_are_found_beside_the_graph(tmp_path: Path) -> None:
    product = node("MatMul", ["x", "w"], ["y"])
    data = serialized([product], [value("x", F, [1, 64])], [value("y", F, [1, 64])], w=np.ones((64, 64), np.float32))
    path = tmp_path / "there" / "m.onnx"
    path.parent.mkdir()
    onnx.save_model(onnx.load_from_string(data), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert not answer(path.read_bytes(), "").parsed
    assert answer(path.read_bytes(), str(path)).built
