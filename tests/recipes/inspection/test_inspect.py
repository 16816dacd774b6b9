"""Looking into files: weights that stay where they are, weights that are not there, and what the command says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fuzz import broken, fuzz, held
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_bundles import doubling
from small_graphs import doubler

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import TARGETS
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.recipes.inspection.inspect import read_graph

F = TensorProto.FLOAT


def save_external(path: Path, rows: int = 300) -> Path:
    """A reshape, a product and a pick of the best, whose weights, shape and K lie in `<name>.data`."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"], name="reshape"),
        helper.make_node("MatMul", ["r", "w"], ["p"], name="product"),
        helper.make_node("TopK", ["p", "k"], ["y", "i"], name="pick"),
    ]
    weights = {"shape": np.array([1, rows]), "w": np.ones((rows, 5000), np.float32), "k": np.array([4000])}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", F, [rows])],
        [value("y", F, [1, 4000])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0)
    return path


def test_large_weights_stay_in_their_file_and_small_ones_are_read(tmp_path: Path) -> None:
    model = read_graph(save_external(tmp_path / "m.onnx"))
    assert model.ByteSize() < 10_000
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    assert held["w"].data_location == TensorProto.EXTERNAL
    assert numpy_helper.to_array(held["shape"]).tolist() == [1, 300]
    found = api.lint(tmp_path / "m.onnx")["targets"]
    assert found["ort-cpu"]["findings"] == []  # the shape is known, so everything is static
    assert [row["what"] for row in found["trt-11"]["findings"]] == ["K = 4000 is above 3840"]


def test_a_weights_file_that_is_missing_short_or_outside_is_one_line(tmp_path: Path) -> None:
    path = save_external(tmp_path / "m.onnx")
    data = tmp_path / "m.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"keeps its weights in m.onnx.data, which is too short; put the whole file"):
        api.lint(path)
    data.unlink()
    with pytest.raises(InputError, match=r"keeps its weights in m.onnx.data, which is missing"):
        api.inspect(path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "m.onnx.data").write_bytes(whole)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../m.onnx.data"
    (tmp_path / "inner" / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"wants its weights from ../m.onnx.data, outside its own folder"):
        api.lint(tmp_path / "inner" / "m.onnx")


@pytest.fixture
def gelu(tmp_path: Path) -> Path:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Gelu", ["x"], ["a"], name="first"), helper.make_node("Gelu", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", F, [2])], [value("y", F, [2])])
    path = tmp_path / "gelu.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())
    return path


def test_every_target_is_a_row_unless_one_is_named(gelu: Path) -> None:
    page = CliRunner().invoke(cli, ["lint", str(gelu)])
    assert page.exit_code == 0  # some targets take it
    rows = {line.split()[1]: line for line in page.output.splitlines() if line.startswith("│ ") and line[2] != " "}
    assert set(rows) == set(TARGETS)
    assert {name for name, row in rows.items() if "refused" in row} == {"trt-8.5", "trt-8.6"}
    assert "2 x Gelu: trt-8.5 has no Gelu" in rows["trt-8.5"]


def test_one_target_is_told_in_detail_and_decides_the_status(gelu: Path) -> None:
    page = CliRunner().invoke(cli, ["lint", str(gelu), "--target", "jetpack-5"])
    assert page.exit_code == 1
    assert "error: Gelu x2 first, y: trt-8.5 has no Gelu; let the passes lower it" in page.output
    page = CliRunner().invoke(cli, ["lint", str(gelu), "--target", "jetpack-6"])
    assert (page.exit_code, "lint for trt-10.3: clean" in page.output) == (0, True)


def test_several_targets_fail_together_and_json_has_every_node(gelu: Path) -> None:
    words = ["lint", str(gelu), "--target", "trt-11", "--target", "trt-8.6", "--json"]
    page = CliRunner().invoke(cli, words)
    result = json.loads(page.output)
    assert page.exit_code == 1
    assert {name: verdict["errors"] for name, verdict in result["targets"].items()} == {"trt-11": 0, "trt-8.6": 3}
    assert [row["node"] for row in result["targets"]["trt-8.6"]["findings"]] == ["graph", "first", "y"]
    assert set(json.loads(CliRunner().invoke(cli, [*words, "--target", "all"]).output)["targets"]) == set(TARGETS)


def test_a_graph_that_no_target_takes_fails_without_one_being_named(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [value("x", F, [2])],
        [value("y", TensorProto.INT64, [1, "n"])],
    )
    path = tmp_path / "dynamic.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    assert CliRunner().invoke(cli, ["lint", str(path)]).exit_code == 1


def test_a_dynamic_batch_is_one_line_and_no_refusal(tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    path.write_bytes(doubler("batch"))
    page = CliRunner().invoke(cli, ["lint", str(path)])
    assert page.exit_code == 0
    assert "refused" not in page.output
    (line,) = [line for line in page.output.splitlines() if line.startswith("not static: ")]
    assert line.startswith("not static: the input image [batch, 3], and 1 values and nodes that follow from that; ")
    result = json.loads(CliRunner().invoke(cli, ["lint", str(path), "--json"]).output)
    assert {row["errors"] for row in result["targets"].values()} == {0}
    assert result["static"]["node"] == "image"
    for words in (["lint", str(path), "--target", "jetpack-5"], ["inspect", str(path)]):
        page = CliRunner().invoke(cli, words)
        assert (page.exit_code, page.output.count("not static: ")) == (0, 1)
        assert "clean" in page.output
    path.write_bytes(doubler(2))
    assert api.lint(path)["static"] is None


def test_a_fixed_batch_is_what_the_line_says_it_is(tmp_path: Path) -> None:
    """The command of the remedy, run as it stands."""
    path = tmp_path / "IN.onnx"
    path.write_bytes(doubler("batch"))
    remedy = api.lint(path)["static"]["remedy"]
    words = remedy.partition("fix it: ")[2].split()
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert api.lint(tmp_path / "OUT.onnx")["static"] is None


def test_a_bundle_s_own_graph_has_to_be_static(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    (root / "model.onnx").write_bytes(doubler("batch"))
    write_manifest(root, {}, [])
    page = CliRunner().invoke(cli, ["lint", str(root)])
    assert page.exit_code == 1
    assert "its shape [batch, 3] is not static" in CliRunner().invoke(cli, ["lint", str(root), "--json"]).output


def test_targets_are_listed_with_what_is_known_of_them() -> None:
    page = CliRunner().invoke(cli, ["targets"])
    for target in TARGETS.values():
        assert f"{target.name}: {target.notes}" in page.output
        assert all(link in page.output for _, link in target.faults)
    listed = json.loads(CliRunner().invoke(cli, ["targets", "--json"]).output)
    assert [row["name"] for row in listed] == list(TARGETS)


@pytest.mark.slow
def test_inspect_shows_before_after_and_lint(made: tuple[Path, Any]) -> None:
    result = api.inspect(made[0])
    assert sum(result["operators"].values()) < sum(result["before"].values())
    assert result["findings"] == []
    assert any(entry["count"] for entry in result["passes"])
    other = api.inspect(made[0] / "model.onnx", "jetpack-5")
    assert any("LayerNormalization" in finding["what"] for finding in other["findings"])
    verdicts = api.lint(made[0])["targets"]
    assert verdicts["ort-cpu"] == {"errors": 0, "warnings": 0, "findings": []}
    assert verdicts["trt-8.5"]["findings"] == other["findings"]


def many_operators() -> onnx.ModelProto:
    """Operators that lint looks into, a branch, a function, and a weight of every kind."""
    value, node = helper.make_tensor_value_info, helper.make_node
    branch = helper.make_graph([node("Identity", ["x"], ["b"])], "branch", [], [value("b", F, [2, 8])])
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([4, 4]))),
        node("Reshape", ["x", "c"], ["r"]),
        node("Slice", ["r", "start", "end", "axes"], ["slice"]),
        node("Range", ["zero", "eight", "one"], ["range"]),
        node("ConstantOfShape", ["shape"], ["filled"]),
        node("QuantizeLinear", ["w", "scale", "point"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "scale", "point"], ["dq"], axis=0),
        node("MatMul", ["r", "dq"], ["y"]),
        node("ScatterElements", ["x", "ids", "x"], ["scattered"], axis=0, reduction="add"),
        node("TopK", ["x", "k"], ["best", "places"], sorted=0),
        node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch),
        node("own", ["x"], ["z"], domain="my"),
    ]
    arrays = {"start": [0], "end": [4], "axes": [1], "zero": 0, "eight": 8, "one": 1, "shape": [2, 4], "k": [2]}
    held = {name: np.array(values) for name, values in arrays.items()}
    held |= {"w": np.ones((4, 4), np.float32), "scale": np.ones(4, np.float32), "point": np.zeros(4, np.int8)}
    held |= {"ids": np.zeros((2, 8), np.int64), "yes": np.array(True)}
    weights = [numpy_helper.from_array(values, name) for name, values in held.items()]
    graph = helper.make_graph(nodes, "g", [value("x", F, [2, 8])], [value("y", F, [4, 4])], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    function = helper.make_function("my", "own", ["a"], ["o"], [node("Relu", ["a"], ["o"])], opsets)
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)


def messages(message: Any) -> list[Any]:
    inner = [
        part
        for field, value in message.ListFields()
        if field.message_type is not None
        for part in (value if field.is_repeated else [value])
    ]
    return [message, *(deep for part in inner for deep in messages(part))]


_NUMBERS = [0, 1, 2, 17, 18, 100, -1, -(2**31), 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63)]
_WORDS = [
    "",
    "x",
    "y",
    "s",
    "Add",
    "If",
    "Loop",
    "TopK",
    "Reshape",
    "value",
    "axis",
    "ai.onnx",
    "no.where",
    "\x1b[2J\n",
    "9" * 99,
]


def _other(value: Any, draw: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, int):
        return draw(st.sampled_from(_NUMBERS))
    word = draw(st.sampled_from(_WORDS))
    return word if isinstance(value, str) else word.encode() if isinstance(value, bytes) else 0.5


def change_field(message: Any, draw: Any) -> None:
    """One field of a message another value, gone, doubled, or in another order."""
    fields = [field for field, _ in message.ListFields()] or list(message.DESCRIPTOR.fields)
    field = fields[draw(st.integers(0, len(fields) - 1))]
    action = draw(st.sampled_from(["clear", "double", "turn", "set", "set", "set"]))
    values = list(getattr(message, field.name)) if field.is_repeated else [getattr(message, field.name)]
    if action == "set" and field.message_type is None:
        values = [_other(values[0] if values else 0, draw), *values[1:]]
    elif action == "double":
        values += values[:1]
    elif action == "turn":
        values = values[::-1]
    copies = [type(value).FromString(value.SerializeToString()) if field.message_type else value for value in values]
    message.ClearField(field.name)
    with contextlib.suppress(TypeError, ValueError):  # a value that protobuf does not let in
        if action != "clear" and field.is_repeated:
            getattr(message, field.name).extend(copies)
        elif action != "clear" and field.message_type is None:
            setattr(message, field.name, copies[0])


def look(path: Path) -> None:
    json.dumps(api.lint(path, ("ort-cpu", "trt-8.6")), allow_nan=False)
    json.dumps(api.inspect(path), allow_nan=False)


@fuzz(8)
@given(data=st.data())
def test_a_graph_with_any_field_changed_is_looked_into_or_one_line(data: Any, tmp_path: Path) -> None:
    model = many_operators()
    for _ in range(data.draw(st.integers(1, 4))):
        parts = messages(model)
        change_field(parts[data.draw(st.integers(0, len(parts) - 1))], data.draw)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    held(look, tmp_path / "m.onnx")


@fuzz(8)
@given(data=broken(many_operators().SerializeToString()))
def test_a_graph_of_any_bytes_is_looked_into_or_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    held(look, tmp_path / "m.onnx")


def small_graph(*nodes: onnx.NodeProto, opset: int = 17, size: int = 2) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", F, [size])], [value("y", F, [2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [0, -1, -(2**63), 10_000, 2**31, 2**63 - 1])
def test_an_opset_that_there_is_not_is_named(opset: int, tmp_path: Path) -> None:
    onnx.save(small_graph(helper.make_node("Relu", ["x"], ["y"]), opset=opset), tmp_path / "m.onnx")
    for use in (api.lint, api.inspect):
        with pytest.raises(InputError, match=rf"m\.onnx declares the opset {opset}, which there is not"):
            use(tmp_path / "m.onnx")


def test_what_ends_onnx_s_own_inference_is_a_finding(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["z"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    onnx.save(small_graph(*nodes), tmp_path / "circle.onnx")
    value = helper.make_node("own", ["x"], ["y"], domain="my")
    endless = small_graph(value)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    endless.functions.append(helper.make_function("my", "own", ["x"], ["y"], [value], opsets))
    endless.opset_import.append(opsets[1])
    onnx.save(endless, tmp_path / "endless.onnx")
    for name, said in (("circle", "shapes cannot be inferred"), ("endless", "its functions cannot be inlined")):
        (first, *_) = api.lint(tmp_path / f"{name}.onnx", "ort-cpu")["targets"]["ort-cpu"]["findings"]
        assert (first["severity"], first["what"].startswith(said)) == ("error", True), first


def test_a_negative_size_is_one_that_is_not_static(tmp_path: Path) -> None:
    for size in (-1, -(2**31)):
        onnx.save(small_graph(helper.make_node("Slice", ["x", "a", "b"], ["y"]), size=size), tmp_path / "m.onnx")
        found = api.lint(tmp_path / "m.onnx", "ort-cpu")["static"]
        assert found["severity"] == "warning", found


def test_paths_that_are_no_files_are_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    for use in (api.lint, api.inspect):
        with pytest.raises(InputError, match=r"m\.onnx: it is a FIFO; give the graph itself"):
            use(tmp_path / "m.onnx")
        with pytest.raises(InputError, match="it is a device"):
            use("/dev/zero")
        with pytest.raises(InputError, match="name too long"):
            use("x" * 300)
    with open(tmp_path / "giant.onnx", "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InputError, match="has 1099511627776 bytes, and a graph has at most"):
        api.lint(tmp_path / "giant.onnx")
    path = save_external(tmp_path / "w.onnx")
    (tmp_path / "w.onnx.data").unlink()
    os.mkfifo(tmp_path / "w.onnx.data")
    with pytest.raises(InputError, match=r"w\.onnx\.data, which is no regular file"):
        api.lint(path)
