"""Looking into files: weights that stay where they are, weights that are not there, and what the command says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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
from vitrim.exporter.core.targets import TARGETS
from vitrim.exporter.runtime import bundle
from vitrim.recipes.pipeline.inspect import read_graph

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
    bundle.write_manifest(root, {}, [])
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
