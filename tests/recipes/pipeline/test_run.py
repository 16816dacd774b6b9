"""The pipeline from recipe to bundle on a small model: contents, resuming, failing, and dying at any moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_recipe as small
from safetensors.torch import save_file
from warm import start

from vitrim import api
from vitrim.calibration.images.generated import make_images
from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.reading import read_all
from vitrim.exporter.core import layout, sources
from vitrim.exporter.core.errors import InputError, NotFasterError, ParityError
from vitrim.exporter.pruning.budget import read_budget, write_budget
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.runtime.bench.report import LATER, Bench, report
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.machine.environment import environment
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.open import open_model
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages import bench as timing


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


def test_a_bundle_checks_itself_without_vitrim(made: tuple[Path, Any], tmp_path: Path) -> None:
    stripped = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(made[0] / "run_on_device.py"), "check", "--onnxruntime", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=stripped, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = json.loads(done.stdout), api.check(made[0])
    assert ours["passed"]
    assert ours == json.loads(json.dumps(theirs.to_json()))
    verify_bundle(made[0])


def test_golden_outputs_are_pytorch_s(made: tuple[Path, Any]) -> None:
    golden = load_golden(made[0])
    assert golden["image"].shape == (2, 3, 64, 64)
    assert golden["logits"].dtype == np.float32
    assert api.check(made[0]).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "section", "tokens"),
    [
        ("frugal", {"target": {"flops_ratio": 0.7}}, "left"),
        pytest.param(
            "ppt",
            {"keep_rates": {1: 0.7, 2: 0.7}, "parameters": {"threshold": 0.0008}},
            "grid",
            marks=pytest.mark.exhaustive,  # how tokens fill the grid: exporter/pruning/test_unmerge.py, test_rewrite.py
        ),
    ],
)
def test_merging_and_last_tokens_go_all_the_way(
    tmp_path: Path, method: str, section: dict[str, Any], tokens: str
) -> None:
    recipe = small() | {"prune": {"method": method} | section, "export": {"tokens": tokens}}
    result = api.export(recipe, tmp_path / "out")
    assert result.parity.passed
    assert result.parity.smallest_atol < 1e-4
    compared = {stage.output for stage in result.parity.rungs[-2].stages}
    assert {name.partition("_")[0] for name in compared} == {"kept", "merged"}
    golden = load_golden(tmp_path / "out")
    merged = [name for name in golden if name.startswith("merged_")]
    assert set(merged) == {name for name in compared if name.startswith("merged_")}
    left = result.budget.blocks[-1].after
    assert golden["tokens"].shape == (2, 17 if tokens == "grid" else left, 48)
    assert left > 1  # patches are of use after the last block now
    assert 0.2 < result.fidelity.tokens < 1
    assert (
        f"`tokens` ({'the whole grid' if tokens == 'grid' else 'those that are left'}"
        in (tmp_path / "out" / "README.md").read_text()
    )
    checked = api.check(tmp_path / "out")
    assert checked.passed
    assert checked.rungs[0].tokens.worst < 1e-4


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


@pytest.mark.slow
def test_labels_in_another_order_are_told(tmp_path: Path) -> None:
    """A trained model cannot be at chance; one of random weights is, and nothing is said."""
    model = open_model(recipe_from(small()))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    pixels = make_images(70, 3, 64)[0]
    images = read_all(ArrayImages(pixels, None, preprocessing(model), "shapes"))
    with torch.inference_mode():
        answers = model(torch.from_numpy(images)).argmax(1).numpy()
    np.savez(tmp_path / "a.npz", image=pixels, label=(answers + 1) % 10)
    section = {"path": str(tmp_path / "a.npz"), "generator": None, "count": None, "seed": 0}
    trained = {"random": None, "checkpoint": str(tmp_path / "w.safetensors")}
    told = "dense top-1 is 0.0 % on 70 images: the labels do not fit the model, or it was not trained for them"
    for weights, wanted in ((trained, True), ({}, False)):
        heard = Heard()
        recipe = small(images=section, evaluate=section, model=weights)
        result = api.export(recipe, tmp_path / "out", listener=heard)
        assert result.fidelity.accuracy_dense == 0
        assert any(note.startswith(told) for note in heard.notes) is wanted


EVERY = ["calibrate", "reference", "trace", "passes", "forms", "parity", "fidelity", "bench"]  # behind a plan


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "done_again"),
    [
        ({}, []),
        ({"bench": {"runs": 6}}, ["bench"]),
        ({"bench": {"allow_slower": False}}, []),
        ({"require": {"agreement": 0.01}}, ["gate"]),
        ({"parity": {"atol": 2e-4}}, ["parity"]),
        # With the same tokens: TensorRT would get another plan, of multiples.
        (
            {"export": {"target": "trt-11"}, "prune": {"multiple": 1}},
            ["calibrate", "dense", "trace", "passes", "forms", "parity", "fidelity"],
        ),
        ({"precision": {"name": "fp16", "keep_slower": True}}, ["passes", "forms", "precision", *EVERY[5:]]),
        ({"evaluate": {"count": 5}}, ["reference", "passes", "forms", "parity", "fidelity", "bench"]),
        ({"prune": {"target": None, "keep_rates": {2: 0.6}}}, EVERY),
    ],
)
def test_a_change_runs_what_reads_it_and_nothing_else(
    made: tuple[Path, Any],
    tmp_path: Path,
    change: dict[str, Any],
    done_again: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(made[0].parent, tmp_path, dirs_exist_ok=True)  # the bundle and its cache
    monkeypatch.delenv("VITRIM_STAGES")
    heard = Heard()
    try:
        api.export(small(**change), tmp_path / "out", listener=heard)
    except NotFasterError:
        assert "allow_slower" in change.get("bench", {})
    assert [name for name, cached in heard.stages.items() if not cached] == ["model and images", *done_again, "bundle"]
    verify_bundle(tmp_path / "out")


@pytest.mark.slow
def test_changed_code_is_run_again(made: tuple[Path, Any], tmp_path: Path) -> None:
    """A whole copy of vitrim, in which one pass has changed since the export whose cache it finds."""
    shutil.copytree(made[0].parent, tmp_path, dirs_exist_ok=True)
    package = tmp_path / "vitrim"
    shutil.copytree(sources.ROOT, package, ignore=shutil.ignore_patterns("tests", ".*", "__pycache__", "*.egg-info"))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps(small()))
    keys = {key: value for key, value in os.environ.items() if key != "VITRIM_STAGES"}
    command = [sys.executable, "-m", "vitrim.cli", "export", str(recipe), "-o", str(tmp_path / "out"), "--no-report"]
    file = package / "exporter" / "graph" / "passes" / "qkv_split.py"
    file.write_text(file.read_text() + "# another line\n")
    environment = {**keys, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"s\] ([a-z ]+?)( \(unchanged, skipped\))?$", done.stderr, re.MULTILINE)
    again = ["passes", "forms", "parity", "fidelity", "bench"]
    assert [name for name, skipped in named if not skipped] == ["model and images", *again, "bundle"]
    assert [name for name, skipped in named if skipped] == ["calibrate", "reference", "dense", "trace"]


def test_a_bundle_s_recipe_makes_the_same_bundle_elsewhere(made: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copy(made[0] / "recipe.yaml", tmp_path / "recipe.yaml")
    again = api.export(tmp_path / "recipe.yaml", tmp_path / "out", report=tmp_path / "page.html")
    assert again.budget.blocks == made[1].budget.blocks
    assert again.to_json()["report"] == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 2
    assert (made[1].report, made[1].no_report, made[0].with_name("out.html").exists()) == (None, None, False)
    old, new = (load_golden(folder)["logits"] for folder in (made[0], tmp_path / "out"))
    np.testing.assert_array_equal(old, new)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "batch"), [("trt-8.5", 3), ("trt-10.3", 1)])
def test_other_targets_and_batches(tmp_path: Path, target: str, batch: int) -> None:
    recipe = small(export={"target": target, "batch": batch}, bench={"allow_slower": False})
    result = api.export(recipe, tmp_path / "out")
    assert result.parity.passed
    assert (result.bench, result.to_json()["bench"]) == (None, None)
    assert not (tmp_path / "out" / "bench.json").exists()
    assert verify_bundle(tmp_path / "out").bench == LATER
    assert f"\n- speed: {LATER}\n" in (tmp_path / "out" / "README.md").read_text()
    assert api.inspect(tmp_path / "out")["findings"] == []
    assert load_golden(tmp_path / "out")["image"].shape[0] % batch == 0


@pytest.mark.slow
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
    verify_bundle(tmp_path / "out")  # the old bundle is still there and whole


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


@pytest.mark.slow
def test_a_budget_that_removes_nothing_is_the_dense_model(tmp_path: Path) -> None:
    budget = api.calibrate(small(), tmp_path / "b.json")
    rows = [row.model_copy(update={"before": 17, "after": 17}) for row in budget.blocks]
    plain = budget.model_copy(update={"blocks": tuple(type(row)(block=row.block, before=17, after=17) for row in rows)})
    write_budget(plain, tmp_path / "b.json")
    heard = Heard()
    result = api.export(small() | {"prune": {"budget": str(tmp_path / "b.json")}}, tmp_path / "out", listener=heard)
    assert "removes nothing" in heard.notes[0]
    assert result.fidelity.agreement == 1.0


@pytest.mark.slow
def test_a_failed_proof_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"parity failed at 'torch: .*smallest atol that would pass"):
        api.export(small(parity={"atol": 1e-12}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.staging"))


@pytest.mark.slow
def test_not_faster_is_published_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any, **keys: Any) -> Bench:
        rng = np.random.default_rng(0)
        times = {"dense": 5 + rng.random(9), "pruned": 9 + rng.random(9), "floor": 5 + rng.random(9)}
        return report(times, 1, environment() | {"runtime": "test"})

    monkeypatch.setattr(timing, "bench_graphs", slow)
    with pytest.raises(NotFasterError, match="is published, but the pruned graph is slower than dense"):
        api.export(small(bench={"allow_slower": False}), tmp_path / "out", report=True)
    verify_bundle(tmp_path / "out")
    assert "slower than dense" in (tmp_path / "out.html").read_text()


def test_a_file_in_the_place_of_the_report_is_kept_and_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "out.html").write_text("<p>mine")
    heard = Heard()
    with pytest.raises(InputError, match=r"out\.html exists and is no report; move it, or give --no-report"):
        api.export(small(), tmp_path / "out", listener=heard, report=True)
    assert (heard.stages, [path.name for path in tmp_path.iterdir()]) == ({}, ["out.html"])


@pytest.mark.slow
def test_another_target_s_times_are_taken_where_they_are_asked_for_and_judge_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any, **keys: Any) -> Bench:
        times = {name: value + np.arange(9) / 1e3 for name, value in (("dense", 5.0), ("pruned", 9.0), ("fp32", 7.0))}
        return report(times, 1, environment() | {"runtime": "test", "cpu_only": "only a CPU ran it"})

    monkeypatch.setattr(timing, "bench_graphs", slow)
    recipe = small(export={"target": "jetpack-6"}, bench={"allow_slower": False, "here": True})
    done = api.export(recipe, tmp_path / "out")
    assert done.bench is not None
    assert done.bench.verdict.startswith("not judged: 0.56 times the dense graph's speed")
    assert "take fp32" not in done.bench.verdict
    assert verify_bundle(tmp_path / "out").bench is None
    assert done.bench.verdict in (tmp_path / "out" / "README.md").read_text()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not a vitrim bundle"):
        api.export(small(), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import json, os, signal, sys
from vitrim import api
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.verify import verify_bundle

recipe, out, stages = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

class Deadly:
    def __init__(self, stage, number): self.at, self.number = stage, number
    def stage(self, name, cached=False):
        if name == self.at:
            os.kill(os.getpid(), self.number)
    def progress(self, done, total): pass
    def note(self, text): pass

for stage, name in stages:
    number = getattr(signal, name)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        try:
            api.export(recipe, out, listener=Deadly(stage, number))
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
    print(stage, name, "died" if died else os.WEXITSTATUS(status), flush=True)
    verify_bundle(out)
"""


@pytest.mark.slow
def test_a_run_that_dies_at_any_stage_leaves_the_old_bundle(
    made: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made[0].parent, tmp_path, dirs_exist_ok=True)
    out, other = tmp_path / "out", small(prune={"target": {"flops_ratio": 0.61}})
    hashes = {path.name: path.read_bytes() for path in out.iterdir()}
    deaths = [(stage, "SIGKILL") for stage in ("model and images", "dense", *EVERY, "bundle")]
    deaths += [("trace", "SIGTERM"), ("parity", "SIGINT"), ("bundle", "SIGINT")]
    monkeypatch.delenv("VITRIM_STAGES")
    done = start(json.dumps(other), str(out), json.dumps(deaths), code=KILLED).wait()
    assert done.returncode == 0, done.stderr
    ends = {"SIGINT": "130"}
    assert done.stdout.splitlines() == [f"{stage} {name} {ends.get(name, 'died')}" for stage, name in deaths]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == hashes
    assert api.export(other, out).parity.passed
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.cache", "out"]
    assert not list((tmp_path / ".out.cache").glob("*.making"))


@pytest.mark.slow
def test_two_runs_of_one_output_take_turns(tmp_path: Path) -> None:
    """The second says who is at work, waits, and finds everything done."""
    out, heard = tmp_path / "out", Heard()
    with cache_of(out).locked(heard.note):
        second = Heard()
        thread = threading.Thread(target=api.export, args=(small(), out), kwargs={"listener": second})
        thread.start()
        while not second.notes and thread.is_alive():
            time.sleep(0.05)
        assert second.notes == [
            f"process {os.getpid()} is at work on the same output ({tmp_path / '.out.cache'}); waiting for it"
        ]
        assert not out.exists()
    thread.join()
    verify_bundle(out)


PAIRS = {
    "calibrate, calibrate": (("calibrate", "r.yaml", "-o", "b.json"),) * 2,
    "slim, slim": (("slim", "s.yaml", "-o", "w.safetensors"),) * 2,
    "export, export": (("export", "r.yaml", "-o", "out"),) * 2,
    "export, clean": (("export", "r.yaml", "-o", "out", "--no-report"), ("clean", "out")),
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_two_processes_on_one_output_take_turns(tmp_path: Path, pair: str) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(small()))
    (tmp_path / "s.yaml").write_text(json.dumps(small(slim={"target": {"flops_ratio": 0.8}}) | {"prune": None}))
    runs = [start(*words, cwd=tmp_path) for words in PAIRS[pair]]
    for words, run in zip(PAIRS[pair], runs, strict=True):
        done = run.wait()
        assert "no such file" not in done.stderr.lower()
        assert done.returncode == 0 or (words[0] == "clean" and "is at work in" in done.stderr), done.stderr
        if pair == "export, export":
            assert f"\nReport: {tmp_path / 'out.html'}\n" in done.stdout
    if pair.startswith("export"):
        verify_bundle(tmp_path / "out")
        assert (tmp_path / "out.html").exists() == (pair == "export, export")
