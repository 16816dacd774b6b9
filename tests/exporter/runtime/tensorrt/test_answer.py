"""What the real TensorRT for RTX says of small graphs; it needs no GPU."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import doubler

from vitrim.exporter.runtime.tensorrt.answer import answer, serve
from vitrim.exporter.runtime.tensorrt.family import RTX

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")
F, I64 = TensorProto.FLOAT, TensorProto.INT64
value, node = helper.make_tensor_value_info, helper.make_node


def serialized(nodes: list[onnx.NodeProto], inputs: list, outputs: list, **weights: np.ndarray) -> bytes:
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_graph_is_built_in_memory() -> None:
    found = answer(doubler(), "", RTX)
    assert (found.parsed, found.built, found.refused, found.ended) == (True, True, (), "")
    assert found.kernels == 1
    assert found.size > 10_000
    assert found.by.startswith("TensorRT for RTX 1.")
    assert found.assumed is None


def test_every_node_that_the_parser_checks_is_named() -> None:
    nodes = [node("Det", ["x"], ["a"], name="first"), node("Det", ["x"], ["b"], name="second")]
    found = answer(serialized(nodes, [value("x", F, [3, 3])], [value("a", F, []), value("b", F, [])]), "", RTX)
    assert [(each.by, each.node, each.op, each.code) for each in found.refused] == [
        ("parser", "first", "Det", "UNSUPPORTED_NODE"),
        ("parser", "second", "Det", "UNSUPPORTED_NODE"),
    ]
    assert not found.parsed


def test_the_builder_s_limit_of_topk_is_laid_at_its_node() -> None:
    for most, built in ((3840, True), (3841, False)):
        pick = node("TopK", ["x", "k"], ["y", "i"], name="/pick")
        data = serialized([pick], [value("x", F, [1, 5000])], [value("y", F, [1, most])], k=np.array([most]))
        found = answer(data, "", RTX)
        assert (found.parsed, found.built) == (True, built)
        assert [each.node for each in found.refused] == ([] if built else ["/pick"])


def test_open_sizes_are_assumed_and_said() -> None:
    inputs = [value("image", F, ["n", 3, "h", "w"]), value("mask", F, ["n", "t"]), value("more", F, ["n", "t"])]
    nodes = [node("Relu", ["image"], ["a"]), node("Add", ["mask", "more"], ["b"])]
    outputs = [value("a", F, ["n", 3, "h", "w"]), value("b", F, ["n", "t"])]
    found = answer(serialized(nodes, inputs, outputs), "", RTX)
    assert found.built
    assert found.assumed == {"image": (1, 3, 224, 224), "mask": (1, 128), "more": (1, 128)}


def test_an_input_that_decides_a_size_is_taken_as_ones() -> None:
    nodes = [node("Expand", ["x", "to"], ["y"], name="grow")]
    data = serialized(nodes, [value("x", F, [3]), value("to", I64, [2])], [value("y", F, ["a", "b"])])
    found = answer(data, "", RTX)
    assert (found.built, found.assumed) == (True, {"to": (1, 1)})


def test_a_type_of_an_input_is_refused_at_the_input() -> None:
    data = serialized(
        [node("Abs", ["x"], ["y"])], [value("x", TensorProto.INT16, [2])], [value("y", TensorProto.INT16, [2])]
    )
    assert [(each.node, each.op) for each in answer(data, "", RTX).refused] == [("x", "value")]


def test_weights_in_a_file_are_found_beside_the_graph(tmp_path: Path) -> None:
    product = node("MatMul", ["x", "w"], ["y"])
    data = serialized([product], [value("x", F, [1, 64])], [value("y", F, [1, 64])], w=np.ones((64, 64), np.float32))
    path = tmp_path / "m.onnx"
    whole = onnx.load_from_string(data)
    onnx.save_model(whole, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert answer(path.read_bytes(), str(path), RTX).built
    assert not answer(path.read_bytes(), str(tmp_path / "elsewhere" / "m.onnx"), RTX).parsed
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_requests_are_answered_line_by_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, target = doubler(), tmp_path / "out"
    request = json.dumps({"size": len(data), "place": ""}).encode() + b"\n" + data
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(request * 2)))
    kept = os.dup(1)
    with target.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        try:
            serve("rtx")
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert [json.loads(line)["built"] for line in target.read_text().splitlines()] == [True, True]
