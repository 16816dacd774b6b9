"""A precision through the whole pipeline: kept where it holds and is faster, told where not, fit for every target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import small_recipe
from listeners import Ears

from vitrim import api
from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.exporter.core.errors import InputError, ParityError, UnsupportedError
from vitrim.exporter.core.preprocess import Preprocess
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.lint.check import lint, operator_table
from vitrim.exporter.graph.precision.report import PrecisionReport
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.weights import is_external, place_of
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.schema.recipe import Recipe
from vitrim.recipes.schema.sections.outputs import PrecisionSection
from vitrim.recipes.stages import precision
from vitrim.recipes.stages.graphs import EMULATED
from vitrim.recipes.stages.precision import check_precision, in_manifest, write_precision


def make(folder: Path, name: str, target: str = "ort-cpu", **section: Any) -> tuple[Any, Path, list[str]]:
    """An export of the small recipe in a precision, whatever it does to random answers."""
    free = {"name": name, "agreement": 0.0, "cosine": 0.9, "keep_slower": True, "images": 4}
    recipe = small_recipe(export={"target": target}, precision=free | section)
    ears = Ears()
    return api.export(recipe, folder / "out", engine="skip", listener=ears), folder / "out", ears.notes


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("fp16", "jetpack-5"), ("int8", "jetpack-5"), ("int8", "trt-11")])
def test_tensorrt_takes_the_graph(name: str, target: str, tmp_path: Path) -> None:
    done, out, _ = make(tmp_path, name, target)
    where = get_target(target)
    model = onnx.load(out / "model.onnx")
    assert [finding for finding in lint(model, where) if finding.severity == "error"] == []
    assert done.precision.name == name
    assert done.precision.not_timed == f"{where.name} does not run here"
    assert done.bench is None
    table = operator_table(model)
    assert (table.get("QuantizeLinear", 0) > 0) == (name == "int8")
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    assert (onnx.TensorProto.FLOAT16 in weights) == (name == "fp16" or where.opset >= 19)
    files = {path.name for path in out.glob("*.onnx")}
    assert files == {"model.onnx", "proof.onnx", "dense.onnx", "floor.onnx", "model.fp32.onnx"} | (
        {"model.fp16.onnx"} if name == "int8" else set()
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["precision"]["name"] == name
    pinned = set(manifest["precision"]["float32_nodes"])
    assert {node.name for node in model.graph.node if node.op_type == "Softmax"} <= pinned
    rung, shipped = done.parity.rungs[-2:]
    assert (rung.name, rung.passed, rung.strict) == (f"onnx: in {name}", True, False)
    assert (shipped.name, shipped.passed, shipped.end.max_abs) == ("onnx: model.onnx = proof.onnx", True, 0)
    assert done.fidelity.precision.agreement > 0.5
    assert api.check(out).passed


@pytest.mark.slow
def test_bfloat16_is_proven_by_rounding_like_it(tmp_path: Path) -> None:
    done, out, _ = make(tmp_path, "bf16", "jetpack-6")
    model = onnx.load(out / "model.onnx")
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    assert onnx.TensorProto.BFLOAT16 in weights
    rung, shipped = done.parity.rungs[-2:]
    assert (rung.name, rung.passed) == ("onnx: in bf16", True)
    assert rung.end.max_abs > 1e-4
    assert (shipped.name, shipped.end.max_abs) == ("onnx: model.onnx = proof.onnx", 0)
    assert not [path.name for path in out.iterdir() if "emulated" in path.name]


@pytest.mark.slow
def test_int8_on_the_cpu_is_integer_products(tmp_path: Path) -> None:
    done, out, _ = make(tmp_path, "int8")
    table = operator_table(onnx.load(out / "model.onnx"))
    integer = table.get("MatMulIntegerToFloat", 0) + table.get("MatMulInteger", 0)
    assert integer == done.precision.products == 4 * 4 + 1  # the last block's query is a product of its own
    assert set(done.bench.ratios) >= {"speedup", "overhead", "over_fp32"}
    assert set(done.precision.forms_timed) == {"static", "dynamic"}


@pytest.mark.slow
def test_what_is_not_faster_is_not_kept_and_told(tmp_path: Path) -> None:
    done, out, notes = make(tmp_path, "fp16", keep_slower=False)
    assert done.precision.name == "fp32"
    assert done.precision.interval[0] <= 1
    assert notes == [done.precision.reason]
    assert "times as fast as float32 here" in notes[0]
    assert "precision.keep_slower=true" in notes[0]
    assert {path.name for path in out.glob("*.onnx")} == {"model.onnx", "proof.onnx", "dense.onnx", "floor.onnx"}
    assert json.loads((out / "manifest.json").read_text())["precision"] == {"name": "fp32", "float32_nodes": []}
    assert done.parity.rungs[-1].strict


@pytest.mark.slow
def test_pixels_stay_float_in_half_precision(tmp_path: Path) -> None:
    recipe = small_recipe(
        export={"target": "jetpack-6", "input": "uint8", "top_k": 3},
        precision={"name": "fp16", "agreement": 0.0, "cosine": 0.99},
    )
    done = api.export(recipe, tmp_path / "out", engine="skip")
    golden = np.load(tmp_path / "out" / "golden.npz")
    assert golden["image"].dtype == np.uint8
    assert done.parity.rungs[-2].equal.cosine_min > 0.999


@pytest.mark.slow
def test_a_target_refuses_what_it_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"precision\.name: trt-8\.5 takes no bf16 graph \(it takes fp32, fp16, int8\)"
    ):
        make(tmp_path, "bf16", "jetpack-5")
    with pytest.raises(InputError, match=r"precision\.tool: modelopt places int8 for TensorRT targets"):
        make(tmp_path, "int8", tool="modelopt")
    refused = {
        r"precision\.tool: nncf places int8 for OpenVINO targets": ("trt-11", {"tool": "nncf"}),
        r"precision\.around is for int8 on OpenVINO": ("ort-cpu", {"around": "bf16"}),
        r"precision\.around: openvino has no fp16; take bf16 or fp32": ("openvino", {"around": "fp16"}),
    }
    for why, (target, own) in refused.items():
        with pytest.raises(InputError, match=why):
            check_precision(PrecisionSection(name="int8", **own), get_target(target))
    with pytest.raises(InputError, match=r"precision\.float32: no node of the graph is called 'nothing\*'"):
        make(tmp_path, "fp16", float32=["nothing*"])


@pytest.mark.slow
def test_an_answer_that_does_not_hold_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="in fp16.*mean cosine is .* below 1"):
        make(tmp_path, "fp16", "jetpack-6", cosine=1.0)
    assert not (tmp_path / "out").exists()


def test_the_manifest_names_every_graphs_nodes_once() -> None:
    nodes = {"pruned": ("b", "a"), "floor": ("a", "c")}
    report = PrecisionReport("fp16", "fp16", nodes, speedup_over_fp32=None, interval=None)
    assert in_manifest(report) == {"name": "fp16", "float32_nodes": ["a", "b", "c"]}
    assert in_manifest(None)["name"] == "fp32"


def test_float32_is_the_default() -> None:
    assert Recipe.model_validate(small_recipe()).precision.name == "fp32"


WIDE = 192  # whose square is large enough to lie beside the graph


def chain_beside_its_weights(folder: Path) -> Path:
    """image -> three products, the two square ones with their weights in a file beside the graph."""
    draw = np.random.default_rng(0)
    sizes = {"w0": (48, WIDE), "w1": (WIDE, WIDE), "w2": (WIDE, WIDE), "w3": (WIDE, 4)}
    held = [onnx.numpy_helper.from_array(draw.standard_normal(size, np.float32) / 12, w) for w, size in sizes.items()]
    held.append(onnx.numpy_helper.from_array(np.array([1, 48]), "flat"))
    nodes = [onnx.helper.make_node("Reshape", ["image", "flat"], ["y"], "reshape")]
    for name in sizes:
        out = "logits" if name == "w3" else f"y{name}"
        nodes.append(onnx.helper.make_node("MatMul", [nodes[-1].output[0], name], [out], f"product_{name}"))
    ends = {"image": [1, 3, 4, 4], "logits": [1, 4]}
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends.items()]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], held)
    with WeightStore(folder) as store:
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
        store.save(model, "pruned.onnx")
    return folder / "pruned.onnx"


@pytest.mark.parametrize("target", ["trt-11", "ort-cpu"])
def test_half_precision_never_holds_the_float32_weights(target: str, tmp_path: Path, monkeypatch: Any) -> None:
    """So protobuf's 2 GB do not bind it; what stays in float32 shares the file of the graph before."""
    path = chain_beside_its_weights(tmp_path / "before")
    monkeypatch.setattr(precision, "read_whole", None)
    preprocess = Preprocess((3, 4, 4), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    images = np.random.default_rng(1).standard_normal((4, 3, 4, 4), np.float32)
    section = PrecisionSection(name="fp16", float32=["product_w2"], images=4, keep_slower=True)
    source, out = ArrayImages(images, None, preprocess, "noise"), tmp_path / "after"
    write_precision(section, {"pruned": path}, get_target(target), source, preprocess, 1, out, Ears())
    model, _ = read_bare(out / "pruned.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    held = {node.name[-2:]: tensors[node.input[1]] for node in model.graph.node if node.op_type == "MatMul"}
    assert {name for name, tensor in held.items() if is_external(tensor)} == {"w1", "w2"}
    before = next((tmp_path / "before").glob("*.data"))
    assert place_of(held["w2"]).file == before.name
    assert (out / before.name).samefile(before)
    assert held["w2"].data_type == onnx.TensorProto.FLOAT
    assert {held[name].data_type for name in ("w0", "w1", "w3")} == {onnx.TensorProto.FLOAT16}
    proof = out / f"pruned{EMULATED}"
    assert proof.exists() == (target == "trt-11")
    runners = [OrtRunner(each, threads=1) for each in (path, proof if proof.exists() else out / "pruned.onnx")]
    old, new = (run_all(runner, images, 1)["logits"] for runner in runners)
    assert 0 < np.abs(old - new).max() < 0.01 * np.abs(old).max()
    report = json.loads((out / "precision.json").read_text())
    assert report["float32_nodes"] == {"pruned": ["product_w2"]}


def test_what_is_not_kept_leaves_no_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = chain_beside_its_weights(tmp_path / "before")
    monkeypatch.setattr(precision, "trial", lambda *_: {"speedup_over_fp32": 0.5, "interval": [0.4, 0.6]})
    preprocess = Preprocess((3, 4, 4), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    images = np.random.default_rng(1).standard_normal((2, 3, 4, 4), np.float32)
    source, out, ears = ArrayImages(images, None, preprocess, "noise"), tmp_path / "after", Ears()
    section = PrecisionSection(name="fp16")
    write_precision(section, {"pruned": path}, get_target("ort-cpu"), source, preprocess, 1, out, ears)
    assert [file.name for file in out.iterdir()] == ["precision.json"]
    report = json.loads((out / "precision.json").read_text())
    assert (report["name"], report["float32_nodes"]) == ("fp32", {})
    assert ears.notes == [report["reason"]]
    assert "fp16 runs 0.50 times as fast as float32 here (95 % interval 0.40 to 0.60)" in report["reason"]


def test_int8_says_that_it_takes_no_giant(tmp_path: Path, monkeypatch: Any) -> None:
    path = chain_beside_its_weights(tmp_path / "before")
    monkeypatch.setattr(precision, "SINGLE_FILE_LIMIT", 300_000)
    preprocess = Preprocess((3, 4, 4), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    source = ArrayImages(np.zeros((1, 3, 4, 4), np.float32), None, preprocess, "zeros")
    with pytest.raises(UnsupportedError, match=r"has 0\.0 GB of weights, and .* takes at most 2 GB; take fp16"):
        write_precision(
            PrecisionSection(name="int8"),
            {"pruned": path},
            get_target("trt-11"),
            source,
            preprocess,
            1,
            tmp_path,
            Ears(),
        )
