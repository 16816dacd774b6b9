"""What lies in a bundle: every file, what the graphs tell of themselves, and nothing of this machine's paths."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from helpers import small_recipe
from transformers_models import drawn, large, saved

from vitrim import api
from vitrim.exporter.core import layout, sources
from vitrim.exporter.core.errors import ParityError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.weights import is_external
from vitrim.exporter.pruning.budget import read_budget
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.parity import Parity, Rung
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions
from vitrim.exporter.runtime.tensorrt.polygraphy_build import by_polygraphy
from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
from vitrim.recipes.pipeline import engine, pack


def test_a_bundle_holds_everything_and_verifies(made: tuple[Path, Any]) -> None:
    out, result = made
    names = {path.name for path in out.iterdir()}
    wanted = {"model.onnx", "budget.json", "recipe.yaml", "golden.npz", "parity.json", "bench.json", "manifest.json"}
    more = {"README.md", "fidelity.json", "dense.onnx", "floor.onnx", "proof.onnx", "passes.json", "run_on_device.py"}
    more.add("float_nodes.json")
    assert wanted | more == names
    manifest = verify_bundle(out)
    assert manifest.preprocess["input_size"] == [3, 64, 64]
    assert manifest.versions["torch"]
    assert result.parity.passed
    ladder = [rung.name.split(":")[0] for rung in result.parity.rungs]
    assert ladder == ["identity", "identity", "torch", "onnx", "onnx", "onnx"]
    assert result.parity.rungs[0].smallest_atol == 0.0
    assert result.parity.smallest_atol < 1e-4
    bench = json.loads((out / "bench.json").read_text())
    assert set(bench["distributions"]) == {"dense", "pruned", "floor"}
    assert bench["speedup"] > 0
    assert bench["overhead"] > 0
    assert result.fidelity.images == 12
    assert result.fidelity.accuracy_dense is not None
    assert result.engine is not None
    api.recipe(str(out / "recipe.yaml"))  # the resolved recipe is a recipe


def test_the_graph_says_what_it_is(made: tuple[Path, Any]) -> None:
    out, result = made
    model = onnx.load(out / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["vitrim.budget"])["method"] == "zero_tprune"
    assert json.loads(facts["vitrim.preprocess"])["input_size"] == [3, 64, 64]
    assert facts["vitrim.target"] == "ort-cpu"
    assert [value.name for value in model.graph.input] == ["image"]
    *choosing, last = (row.block for row in result.budget.stages)  # where no patch stays, none hands over its size
    assert [value.name for value in model.graph.output] == ["logits"]
    for value in (*model.graph.input, *model.graph.output):
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
    proof = onnx.load(out / "proof.onnx")
    decisions = [f"kept_{block}" for block in (*choosing, last)] + [f"merged_{block}" for block in choosing]
    assert [value.name for value in proof.graph.output] == ["logits", *decisions]
    assert {node.name for node in model.graph.node} < {node.name for node in proof.graph.node}


def test_the_proof_graph_has_the_shipped_graph_s_weights(made: tuple[Path, Any]) -> None:
    bare, weights = read_bare(made[0] / "proof.onnx")
    shared = [tensor for tensor in bare.graph.initializer if is_external(tensor)]
    assert shared
    assert {weights.find(tensor)[0].name for tensor in shared} == {"model.onnx"}
    whole = {tensor.name: tensor.raw_data for tensor in onnx.load(made[0] / "model.onnx").graph.initializer}
    for tensor in onnx.load(made[0] / "proof.onnx").graph.initializer:
        if tensor.name in whole:
            assert tensor.raw_data == whole[tensor.name], tensor.name
    assert (made[0] / "proof.onnx").stat().st_size < (made[0] / "model.onnx").stat().st_size / 2


def test_every_graph_says_which_one_it_is_and_its_own_plan(made: tuple[Path, Any]) -> None:
    out, result = made
    counts = result.budget.tokens
    whole = (17,) * 4
    for name, kind, method, tokens in (
        ("dense.onnx", "dense", "zero_tprune", whole),
        ("model.onnx", "pruned", "zero_tprune", counts),
        ("proof.onnx", "proof", "zero_tprune", counts),
        ("floor.onnx", "floor", "slice", counts),
    ):
        facts = {entry.key: entry.value for entry in onnx.load(out / name).metadata_props}
        plan = json.loads(facts["vitrim.budget"])
        assert (facts["vitrim.kind"], plan["method"]) == (kind, method)
        assert tuple(row["after"] for row in plan["blocks"]) == tokens
        assert json.loads(facts["vitrim.versions"])["vitrim"]
    assert read_budget(out / "budget.json") == result.budget


def test_no_path_of_this_machine_is_in_a_bundle(made: tuple[Path, Any]) -> None:
    places = [str(made[0].parent), str(Path.home()), str(sources.ROOT), sys.prefix]
    for path in made[0].iterdir():
        data = path.read_bytes()
        for place in places:
            assert place.encode() not in data, (path.name, place)


@pytest.mark.slow
def test_reports_are_the_stages_own_files(made: tuple[Path, Any], walked: Any) -> None:
    for stage, name in (
        ("passes", "passes.json"),
        ("parity", "parity.json"),
        ("parity", "golden.npz"),
        ("fidelity", "fidelity.json"),
        ("bench", "bench.json"),
    ):
        assert (made[0] / name).read_bytes() == (walked.folders[stage] / name).read_bytes()


def failing(folder: Path, parity: Parity) -> Parity:
    """The ladder with a rung more, that failed."""
    rung = Rung("engine", 2, passed=False, first_offender="logits", reason="off by 3", smallest_atol=3.0)
    return Parity(parity.atol, parity.tie, (*parity.rungs, rung))


def test_an_engine_that_is_built_is_proven_and_one_that_fails_is_told(
    walked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build_engine(graph: Path, made: Path, options: EngineOptions, **more: Any) -> EngineIdentity:
        built.append((graph.name, options.workspace_mib, more))
        made.write_bytes(b"engine")
        return EngineIdentity("a", "b", tensorrt="10.3.0", gpu="Orin")

    monkeypatch.setattr(engine, "build_engine", build_engine)
    monkeypatch.setattr(engine, "check_folder", lambda folder, parity: parity)
    (tmp_path / "good").mkdir()
    found = pack.pack(walked, tmp_path / "good", None, ["vitrim", "export"])
    how = {"precision": "fp32", "pinned": [], "pins_may_miss": True, "serialize": by_polygraphy}
    assert built == [("model.onnx", 1024, how)]
    assert found.parity.engine is not None
    assert found.parity.passed
    assert "- engine: model.engine, made by TensorRT 10.3.0 for Orin\n" in (tmp_path / "good" / "README.md").read_text()
    assert json.loads((tmp_path / "good" / layout.MANIFEST).read_text())["engine"] == "built"

    monkeypatch.setattr(engine, "check_folder", failing)
    (tmp_path / "bad").mkdir()
    with pytest.raises(ParityError, match="^parity failed at 'engine', first at logits: off by 3; the smallest atol"):
        pack.pack(walked, tmp_path / "bad", None, ["vitrim", "export"])
    assert not json.loads((tmp_path / "bad" / "parity.json").read_text())["passed"]
    assert not (tmp_path / "bad" / layout.MANIFEST).exists()


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.skipif(by_rtx.missing() is not None, reason=str(by_rtx.missing()))
def test_an_engine_of_tensorrt_for_rtx_is_in_a_bundle_made_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "cuda_device", lambda: None)
    recipe = small_recipe(
        export={"target": "trt-rtx", "batch": 2, "input": "uint8", "top_k": 3}, precision={"name": "fp16"},
        engine={"capabilities": [8.6, 8.9]},
    )  # fmt: skip
    out = tmp_path / "out"
    done = api.export(recipe, out, engine="require")
    assert (done.engine, done.parity.passed, done.bench) == (None, True, None)
    assert done.parity.engine is not None
    whole = EngineIdentity.read(out / "model.engine.json", "identity")
    assert whole.kernels
    assert done.parity.engine == whole.brief()
    assert (done.parity.engine.family, done.parity.engine.capabilities) == ("rtx", ("8.6", "8.9"))
    assert done.parity.engine.layers is not None
    assert done.parity.engine.layers.passed
    told = "running one needs a GPU, and there is none"
    assert told in str(done.parity.engine_not_checked)
    assert not [rung for rung in done.parity.rungs if rung.name.startswith("tensorrt")]
    kept = Parity.read(out / "parity.json", "parity report")
    assert (kept.engine, kept.engine_not_checked) == (done.parity.engine, done.parity.engine_not_checked)
    assert "built, but not run here: its numbers and times are unproven" in (out / "README.md").read_text()
    assert verify_bundle(out).engine == "built"
    checked = api.check(out)
    assert (checked.passed, told in str(checked.engine_not_checked), len(checked.rungs)) == (True, True, 2)
    rebuilt = api.build(out, capabilities=["12.0"])
    assert rebuilt.engine is not None
    assert (rebuilt.engine.capabilities, told in str(rebuilt.engine_not_checked)) == (("12.0",), True)
    verify_bundle(out, needs=(layout.ENGINE,))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_folder_of_hugging_face_is_exported_with_its_labels(tmp_path: Path) -> None:
    """The bundle's own recipe names no model, so the folder beside it says it again."""
    folder = saved(drawn(lambda: large("DeiT", num_hidden_layers=4, patch_size=4)), tmp_path / "deit")
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    prune = {"method": "zero_tprune", "target": {"flops_ratio": 0.8}}
    result = api.export(small_recipe(prune=prune) | {"model": {"checkpoint": str(folder)}}, tmp_path / "out")
    assert result.parity.passed
    manifest = verify_bundle(tmp_path / "out")
    assert manifest.preprocess["mean"] == [0.1, 0.2, 0.3]
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == ["cat", "dog", "emu"]
    kept = api.recipe(str(tmp_path / "out" / "recipe.yaml"))
    assert (kept.model.name, Path(str(kept.model.checkpoint)).name) == (None, "deit")
