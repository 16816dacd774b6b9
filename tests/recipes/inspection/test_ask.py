"""A verdict for any graph: everything that the real parser and builder refuse, beside what the table says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from small_bundles import doubling
from small_graphs import doubler

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.recipes.inspection.ask import Asked, Difference, ask_builder

F, U8, D = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.DOUBLE
RTX = get_target("trt-rtx")
value, node = helper.make_tensor_value_info, helper.make_node
wheel = pytest.mark.usefixtures("_wheel")


@pytest.fixture
def _wheel() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")


def save(path: Path, nodes: list, inputs: list, outputs: list, opset: int = 20, **weights: np.ndarray) -> Path:
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()
    )
    return path


def ask(path: Path) -> Asked:
    model = onnx.load(path)
    return ask_builder(model, path, RTX, lint(model, RTX))


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A parser that stops at NonZero has not seen the rest; the sum behind them all is built."""
    nodes = [
        node("NonZero", ["x"], ["places"], name="places"),
        node("Det", ["square"], ["one"], name="det"),
        node("Det", ["square"], ["two"]),
        node("Mul", ["bytes", "bytes"], ["big"], name="mul"),
        node("TopK", ["row", "k"], ["best", "index"], name="/pick"),
        node("Add", ["one", "two"], ["both"]),
        node("Relu", ["both"], ["y"]),
    ]
    inputs = [value("x", F, [2, 3]), value("square", F, [3, 3]), value("bytes", U8, [4]), value("row", F, [1, 5000])]
    outputs = [value("y", F, []), value("big", U8, [4]), value("best", F, [1, 4000])]
    return save(tmp_path / "several.onnx", nodes, inputs, outputs, k=np.array([4000]))


@wheel
def test_every_refused_node_is_found_whoever_refuses_it(several: Path) -> None:
    found = ask(several)
    assert (found.verdict, found.complete) == ("refused", True)
    assert [(each.by, each.op, each.node) for each in found.refused] == [
        ("parser", "NonZero", "places"),
        ("parser", "Det", "det"),
        ("parser", "Det", "two"),
        ("parser", "Mul", "mul"),
        ("builder", "TopK", "/pick"),
    ]
    assert found.agreed == ("/pick", "det", "mul", "places", "two")
    assert found.differences == ()


@wheel
def test_where_the_builder_names_no_node_those_that_it_refuses_alone_are_found(tmp_path: Path) -> None:
    """TensorRT for RTX 1.7 dies of two float32 Attentions in a row."""
    ends = [value(name, F, [1, 2, 8, 32]) for name in "qkvy"]
    nodes = [
        node("Attention", ["q", "k", "v"], ["a"], name="first"),
        node("Attention", ["q", "k", "a"], ["b"], name="second"),
        node("Relu", ["b"], ["y"], name="act"),
    ]
    found = ask(save(tmp_path / "m.onnx", nodes, ends[:3], ends[3:], opset=23))
    assert found.verdict in ("ended", "refused")
    assert {each.node for each in found.refused} == {"first", "second"}
    assert all("dedicated kernel" in each.what for each in found.refused)
    assert found.complete
    assert found.agreed == ("first", "second")


@wheel
def test_what_table_and_builder_say_differently_is_said(tmp_path: Path) -> None:
    inner = helper.make_graph([node("Neg", ["x"], ["n"])], "n", [], [value("n", F, [2])])
    other = helper.make_graph([node("Abs", ["x"], ["m"])], "m", [], [value("m", F, [2])])
    nodes = [
        node("If", ["c"], ["a"], name="choice", then_branch=inner, else_branch=other),
        node("LpPool", ["p"], ["y"], name="pool", p=3, kernel_shape=[2, 2]),
    ]
    inputs = [value("c", TensorProto.BOOL, []), value("x", F, [2]), value("p", F, [1, 1, 4, 4])]
    found = ask(save(tmp_path / "m.onnx", nodes, inputs, [value("a", F, [2]), value("y", F, [1, 1, 3, 3])]))
    assert found.differences == (
        Difference("pool", "LpPool", "takes it", "parser: Only L1 and L2 normalization are supported."),
        Difference("choice", "If", "the graph is not straight-line", "takes it"),
    )


@wheel
def test_what_lies_behind_an_input_that_cannot_be_is_not_asked_about(tmp_path: Path) -> None:
    nodes = [node("Abs", ["x"], ["y"], name="abs"), node("NonZero", ["s"], ["n"], name="places")]
    kind = TensorProto.INT16
    ends = [value("y", kind, [2]), value("n", TensorProto.INT64, [2, None])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", kind, [2]), value("s", F, [3, 3])], ends)
    found = ask(path)
    assert [(each.op, each.node) for each in found.refused] == [("value", "x")]
    assert not found.complete
    assert found.differences == ()  # what was not reached is none


@wheel
def test_the_command_says_all_of_it_and_the_builder_decides_the_status(several: Path) -> None:
    page = CliRunner().invoke(cli, ["lint", str(several), "--ask", "trt-rtx"])
    assert page.exit_code == 1
    assert "parser: Det x2 det, two: it has no such operator" in page.output
    assert "builder: TopK /pick: ITopKLayer /pick: /pick: K exceeds the maximum value allowed (3840)." in page.output
    assert "the table for trt-rtx says the same" in page.output
    result = json.loads(CliRunner().invoke(cli, ["lint", str(several), "--ask", "trt-rtx", "--json"]).output)
    assert set(result["targets"]) == {"trt-rtx"}
    assert len(result["asked"]["refused"]) == 5
    assert all(row["said"] for row in result["asked"]["refused"])


@wheel
def test_a_dynamic_graph_is_built_with_the_sizes_that_are_said(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler("batch"))
    page = CliRunner().invoke(cli, ["lint", str(path), "--ask", "trt-rtx", "--target", "ort-cpu"])
    assert page.exit_code == 0
    assert " builds it (1 kernels, an engine of 0." in page.output
    assert "assumed: image [1, 3], which is open" in page.output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx"]


@wheel
def test_the_builder_s_word_counts_for_its_target(tmp_path: Path) -> None:
    branch = [helper.make_graph([node(op, ["x"], [op])], op, [], [value(op, F, [2])]) for op in ("Neg", "Abs")]
    choice = node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])
    path = save(
        tmp_path / "m.onnx", [choice], [value("c", TensorProto.BOOL, []), value("x", F, [2])], [value("y", F, [2])]
    )
    words = ["lint", str(path), "--target", "trt-rtx"]
    assert CliRunner().invoke(cli, words).exit_code == 1
    page = CliRunner().invoke(cli, [*words, "--ask", "trt-rtx"])
    assert page.exit_code == 0
    assert "differs: If y: the table says: the graph is not straight-line; the real thing says: takes it" in page.output


@wheel
def test_a_bundle_s_graph_is_asked_about_and_nothing_in_it_changes(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert api.lint(root, ask="trt-rtx")["asked"]["verdict"] == "built"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_who_cannot_be_asked_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(doubler())
    with pytest.raises(InputError, match="trt-8.5 cannot be asked, only openvino and trt-rtx"):
        api.lint(path, ask="jetpack-5")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    page = CliRunner().invoke(cli, ["lint", str(path), "--ask", "trt-rtx"])
    assert page.exception is not None
    assert "pip install 'vitrim[rtx]'" in str(page.exception)
    assert page.exception.exit_code == 3


@pytest.mark.slow
def test_openvino_names_each_node_that_it_has_no_rule_for(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    nodes = [
        node("Relu", ["square"], ["a"], name="first"),
        node("Det", ["a"], ["one"], name="det"),
        node("Resize", ["flags", "", "", "sizes"], ["big"], name="grow"),
    ]
    inputs = [value("square", F, [3, 3]), value("flags", TensorProto.BOOL, [1, 1, 2, 2])]
    outputs = [value("one", F, []), value("big", TensorProto.BOOL, [1, 1, 4, 4])]
    path, target = (
        save(tmp_path / "m.onnx", nodes, inputs, outputs, sizes=np.array([1, 1, 4, 4])),
        get_target("openvino"),
    )
    found = ask_builder(onnx.load(path), path, target, lint(onnx.load(path), target))
    assert found.verdict == "refused"
    assert {(each.node, each.op) for each in found.refused} == {("det", "Det"), ("grow", "Resize")}
    assert set(found.agreed) == {"det", "grow"}
    path.write_bytes(doubler())
    said = CliRunner().invoke(cli, ["lint", str(path), "--ask", "openvino"])
    assert said.exit_code == 0
    assert re.search(
        r"^OpenVINO 20\S+ compiles it for the CPU \(\d+ layers, in \d+\.\d s\)$", said.output, re.MULTILINE
    )
    assert "the table for openvino says the same" in said.output
