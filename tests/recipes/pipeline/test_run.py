"""The pipeline from recipe to bundle on a small model: contents, resuming, failing, and dying at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import small_recipe as small

from vitrim import api
from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError, NotFasterError, ParityError
from vitrim.exporter.pruning.budget import read_budget, write_budget
from vitrim.exporter.runtime import bundle
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.machine.environment import environment
from vitrim.recipes.pipeline import run as pipeline


class Heard:
    """Remembers what a pipeline said."""

    def __init__(self) -> None:
        self.stages: dict[str, bool] = {}
        self.notes: list[str] = []

    def stage(self, name: str, cached: bool = False) -> None:
        self.stages[name] = cached

    def progress(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("run") / "out"
    return out, api.export(small(), out)


def test_a_bundle_checks_itself_without_vitrim(made: tuple[Path, Any], tmp_path: Path) -> None:
    stripped = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(made[0] / "run_on_device.py"), "check", "--onnxruntime", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=stripped, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = json.loads(done.stdout), api.check(made[0])
    assert ours["passed"]
    assert ours == json.loads(json.dumps(theirs.to_json()))
    bundle.verify(made[0])


def test_a_bundle_holds_everything_and_verifies(made: tuple[Path, Any]) -> None:
    out, result = made
    names = {path.name for path in out.iterdir()}
    wanted = {"model.onnx", "budget.json", "recipe.yaml", "golden.npz", "parity.json", "bench.json", "manifest.json"}
    more = {"README.md", "fidelity.json", "dense.onnx", "floor.onnx", "passes.json", "run_on_device.py"}
    assert wanted | more == names
    manifest = bundle.verify(out)
    assert manifest.preprocess["input_size"] == [3, 64, 64]
    assert manifest.versions["torch"]
    assert result.parity.passed
    assert [rung.name.split(":")[0] for rung in result.parity.rungs] == ["identity", "torch", "onnx", "onnx"]
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
    stages = [row.block for row in result.budget.stages]
    assert [value.name for value in model.graph.output] == ["logits", *(f"kept_{block}" for block in stages)]
    for value in (*model.graph.input, *model.graph.output):
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)


def test_golden_outputs_are_pytorch_s(made: tuple[Path, Any]) -> None:
    golden = bundle.load_golden(made[0])
    assert golden["image"].shape == (2, 3, 64, 64)
    assert golden["logits"].dtype == np.float32
    assert api.check(made[0]).passed


@pytest.mark.parametrize(
    ("method", "section"),
    [
        ("frugal", {"target": {"flops_ratio": 0.7}}),
        ("ppt", {"keep_rates": {1: 0.7, 2: 0.7}, "parameters": {"threshold": 0.0008}}),
    ],
)
def test_merging_goes_all_the_way(tmp_path: Path, method: str, section: dict[str, Any]) -> None:
    recipe = small() | {"prune": {"method": method} | section}
    result = api.export(recipe, tmp_path / "out")
    assert result.parity.passed
    assert result.parity.smallest_atol < 1e-4
    compared = {stage.output for stage in result.parity.rungs[-1].stages}
    assert {name.partition("_")[0] for name in compared} == {"kept", "merged"}
    golden = bundle.load_golden(tmp_path / "out")
    merged = [name for name in golden if name.startswith("merged_")]
    assert set(merged) == {name for name in compared if name.startswith("merged_")}
    assert api.check(tmp_path / "out").passed


def test_check_fails_on_other_numbers_and_says_which_tolerance_would_pass(made: tuple[Path, Any]) -> None:
    result = api.check(made[0], atol=1e-12)
    assert not result.passed
    assert 1e-12 < result.smallest_atol < 1e-4


def test_one_changed_byte_in_any_file_of_the_bundle_is_found(made: tuple[Path, Any]) -> None:
    for path in sorted(made[0].iterdir()):
        if path.name == layout.MANIFEST:
            continue
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        for command in (api.check, api.bench, api.build):
            with pytest.raises(InputError, match=path.name):
                command(made[0])
        path.write_bytes(whole)


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


def test_unchanged_stages_are_skipped_and_changed_ones_are_not(tmp_path: Path) -> None:
    api.export(small(), tmp_path / "out")
    heard = Heard()
    api.export(small(), tmp_path / "out", listener=heard)
    assert [name for name, cached in heard.stages.items() if cached] == [
        "calibrate", "trace", "passes", "forms", "bench", "parity", "fidelity"
    ]  # fmt: skip
    heard = Heard()
    api.export(small(bench={"runs": 6}), tmp_path / "out", listener=heard)
    # The recipe travels in the graph's metadata, so a change of it traces anew; the decisions stay.
    assert heard.stages["calibrate"]
    assert not heard.stages["bench"]
    bundle.verify(tmp_path / "out")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("target", ["trt-8.5", "trt-10.3"])
def test_other_targets_and_batches(tmp_path: Path, target: str, batch: int) -> None:
    result = api.export(small(export={"target": target, "batch": batch}), tmp_path / "out")
    assert result.parity.passed
    assert api.inspect(tmp_path / "out")["findings"] == []
    assert bundle.load_golden(tmp_path / "out")["image"].shape[0] % batch == 0


def test_an_edited_budget_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    api.calibrate(small(), path)
    data = json.loads(path.read_text())
    for row in data["blocks"]:
        row["before"], row["after"] = (17, 17) if row["block"] < 2 else (17 if row["block"] == 2 else 8, 8)
        for key in ("similar", "iterations"):
            row.pop(key, None)
    data["blocks"][2]["similar"] = 4
    path.write_text(json.dumps(data))
    recipe = small()
    recipe["prune"] = {"budget": str(path)}
    result = api.export(recipe, tmp_path / "out")
    assert [(row.block, row.after) for row in result.budget.stages] == [(2, 8)]
    assert result.budget.gmacs["pruned"] < result.budget.gmacs["dense"]
    data["blocks"][3]["after"] = 9
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"budget\.json: blocks\[3\]\.after is 9, more than its before 8"):
        api.export(recipe, tmp_path / "out")
    bundle.verify(tmp_path / "out")  # the old bundle is still there and whole


@pytest.mark.parametrize(
    "prune",
    [
        {"mass": 0.7},
        {"keep_rates": {1: 0.6}},
        {"preset": "evit-0.7"},
        {"target": {"speedup": 1.2}},
        {"target": {"flops_ratio": 0.8}, "search": {"trials": 3}},
    ],
)
def test_every_way_to_a_budget(tmp_path: Path, prune: dict[str, Any]) -> None:
    recipe = small() | {"prune": prune}
    if "preset" in prune:
        recipe["model"] = recipe["model"] | {"args": recipe["model"]["args"] | {"depth": 6}}
    budget = api.calibrate(recipe, tmp_path / "b.json")
    assert budget.stages
    assert read_budget(tmp_path / "b.json") == budget
    assert {path.name for path in tmp_path.iterdir()} == {"b.json"}


def test_a_budget_that_removes_nothing_is_the_dense_model(tmp_path: Path) -> None:
    budget = api.calibrate(small(), tmp_path / "b.json")
    rows = [row.model_copy(update={"before": 17, "after": 17}) for row in budget.blocks]
    plain = budget.model_copy(update={"blocks": tuple(type(row)(block=row.block, before=17, after=17) for row in rows)})
    write_budget(plain, tmp_path / "b.json")
    heard = Heard()
    result = api.export(small() | {"prune": {"budget": str(tmp_path / "b.json")}}, tmp_path / "out", listener=heard)
    assert "removes nothing" in heard.notes[0]
    assert result.fidelity.agreement == 1.0


def test_a_failed_proof_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"parity failed at 'torch: .*smallest atol that would pass"):
        api.export(small(parity={"atol": 1e-12}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.staging"))


def test_not_faster_is_published_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any, **keys: Any) -> Bench:
        rng = np.random.default_rng(0)
        times = {"dense": 5 + rng.random(9), "pruned": 9 + rng.random(9), "floor": 5 + rng.random(9)}
        return report(times, 1, environment() | {"runtime": "test"})

    monkeypatch.setattr(pipeline, "bench_graphs", slow)
    with pytest.raises(NotFasterError, match="is published, but the pruned graph is slower than dense"):
        api.export(small(bench={"allow_slower": False}), tmp_path / "out")
    bundle.verify(tmp_path / "out")


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not a vitrim bundle"):
        api.export(small(), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_kill_9_and_interrupts_leave_the_old_bundle_or_the_new_one(tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tmp_path / "r.yaml"
    recipe.write_text(json.dumps(small()))
    api.export(str(recipe), out)
    command = [sys.executable, "-m", "vitrim.cli", "export", str(recipe), "-o", str(out), "--quiet", "--set"]
    rng = np.random.default_rng(1)
    for number, how in enumerate([signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM]):
        child = subprocess.Popen([*command, f"prune.target.flops_ratio={0.6 + number / 100}"], env=dict(os.environ))
        time.sleep(float(rng.uniform(6, 14)))
        child.send_signal(how)
        child.wait(timeout=60)
        bundle.verify(out)
    assert api.export(str(recipe), out).parity.passed
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.cache", "out", "r.yaml"]
