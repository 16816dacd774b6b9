"""The command line: light to import, one line an error, the promised exit statuses, and a mirror of the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import InputError, NotFasterError
from vitrim.exporter.runtime.bench.report import Bench, TimedBundle, Untimed, report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.machine.energy import Energy, GraphEnergy
from vitrim.exporter.runtime.parity import Parity, Rung

COMMANDS = [
    "export", "calibrate", "slim", "inspect", "lint", "targets", "check", "bench", "compare", "build", "recipes",
    "methods", "models", "new", "clean", "doctor",
]  # fmt: skip


def vitrim(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vitrim.cli", *words], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )


def test_importing_the_cli_imports_nothing_heavy() -> None:
    heavy = ("torch", "timm", "onnx", "onnxruntime", "onnx_graphsurgeon", "matplotlib")
    code = (
        "import sys, vitrim.cli, vitrim.api, vitrim.exporter.runtime.commands.bench;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_there_is_a_command_a_function_and_an_example_each() -> None:
    assert sorted(cli.commands) == sorted(COMMANDS)
    for name in COMMANDS:
        assert callable(getattr(api, name))
        page = CliRunner().invoke(cli, [name, "--help"])
        assert page.exit_code == 0
        assert f"Example: vitrim {name}" in page.output


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["export", "r.yaml", "-o", "out", "--set", "a.b=1"], "api.export('r.yaml', 'out', settings={'a.b': 1})"),
        (
            ["export", "r", "-o", "out", "--set", "a.b=x", "--set", "c={d: [1, 2]}", "--set", "e=", "--engine", "skip"],
            "api.export('r', 'out', settings={'a.b': 'x', 'c': {'d': [1, 2]}, 'e': None}, engine='skip')",
        ),
        (["export", "r", "-o", "out", "--set", "a.b"], "api.export('r', 'out', settings=['a.b'])"),
        (["calibrate", "r.yaml", "-o", "b.json"], "api.calibrate('r.yaml', 'b.json')"),
        (["slim", "r.yaml", "-o", "s.safetensors"], "api.slim('r.yaml', 's.safetensors')"),
        (["check", "out", "--atol", "0.1"], "api.check('out', atol=0.1)"),
        (["bench", "out"], "api.bench('out')"),
        (
            ["bench", "out", "--cuda-graph", "--no-copies", "--energy", "-o", "b.json"],
            "api.bench('out', cuda_graph=True, energy=True, out='b.json')",
        ),
        (["bench", "out", "--runs", "9", "--threads", "2"], "api.bench('out', runs=9, threads=2)"),
        (["compare", "a.json", "out"], "api.compare(['a.json', 'out'])"),
        (["build", "out"], "api.build('out')"),
        (["build", "out", "--workspace", "64"], "api.build('out', workspace_mib=64)"),
        (
            ["build", "out", "--no-timing-cache", "--dla-core", "0", "--any-precision"],
            "api.build('out', dla_core=0, timing_cache=False, strict=False)",
        ),
        (
            ["build", "out", "--timing-cache", "t", "--version-compatible", "--hardware-compatible", "ampere_plus"],
            "api.build('out', version_compatible=True, hardware_compatible='ampere_plus', timing_cache='t')",
        ),
        (["doctor"], "api.doctor()"),
        (["lint", "m.onnx"], "api.lint('m.onnx')"),
        (["lint", "m.onnx", "--target", "trt-11"], "api.lint('m.onnx', target='trt-11')"),
        (["lint", "m.onnx", "--target", "a", "--target", "b"], "api.lint('m.onnx', target=['a', 'b'])"),
        (["targets"], "api.targets()"),
        (["methods"], "api.methods()"),
        (["models", "deit"], "api.models('deit')"),
        (["models"], "api.models()"),
        (["recipes"], "api.recipes()"),
        (["recipes", "--schema"], "api.recipe_schema()"),
        (["new", "deit_tiny_patch16_224", "-o", "d.yaml"], "api.new('deit_tiny_patch16_224', out='d.yaml')"),
        (
            ["new", "vit_tiny_patch16_224", "--target", "trt-11", "--precision", "fp16", "--classes", "37"],
            "api.new('vit_tiny_patch16_224', target='trt-11', precision='fp16', classes=37)",
        ),
        (["inspect", "out", "--target", "trt-11"], "api.inspect('out', target='trt-11')"),
    ],
)
def test_print_python_is_the_call(words: list[str], call: str) -> None:
    page = CliRunner().invoke(cli, [*words, "--print-python"])
    assert page.output.strip().splitlines()[-1] == call
    compile(page.output, "printed", "exec")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["export", "none.yaml", "-o", "o"], "there is no recipe file none.yaml"),
        (["export", "bad.yaml", "-o", "o"], "did you mean model? (allowed: model, images"),
        (["export", "swin.yaml", "-o", "o"], "swin_tiny_patch4_window7_224 is not supported"),
        (["export", "quickstart", "-o", "o", "--set", "images.path=empty"], "holds no images"),
        (["export", "quickstart", "-o", "o", "--set", "export.target=jetpack-9"], "there is no target 'jetpack-9'"),
        (["export", "quickstart", "-o", "file"], "is a file or a link"),
        (["export", "quickstart", "-o", "o", "--set", "prune.method=tomato"], "unknown pruning method 'tomato'"),
        (["calibrate", "quickstart", "-o", "empty"], "is a folder; name the budget file"),
        (["check", "none"], "there is no bundle none"),
        (["check", "empty"], "has no manifest.json"),
        (["bench", "empty"], "has no manifest.json"),
        (["bench", "empty", "-o", "empty/bench.json"], "lies in the bundle, which stays as it was published"),
        (["compare", "empty", "file"], "has no manifest.json"),
        (["compare", "file", "file"], "is not valid JSON"),
        (["compare", "file"], "name at least two benchmarks"),
        (["build", "empty"], "has no manifest.json"),
        (["inspect", "file"], "is not a whole ONNX file"),
        (["lint", "file"], "is not a whole ONNX file"),
        (["lint", "none.onnx"], "cannot read none.onnx: no such file"),
        (["lint", "empty"], "has no manifest.json"),
        (["lint", "file", "--target", "jetpack-9"], "there is no target 'jetpack-9'"),
        (["new", "resnet18"], "resnet18 is not supported"),
        (["export", "quickstart", "-o", "o", "--engine", "require"], "an engine is required, but TensorRT"),
    ],
)
def test_mistakes_end_in_one_line_and_status_3(tmp_path: Path, words: list[str], reason: str) -> None:
    (tmp_path / "bad.yaml").write_text("modl: {}\n")
    swin = {"model": {"name": "swin_tiny_patch4_window7_224", "random": 0}, "images": {"generator": "noise"}}
    (tmp_path / "swin.yaml").write_text(json.dumps(swin | {"prune": {"preset": "evit-0.7"}}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = vitrim(*words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("vitrim: ")]
    assert len(errors) == 1
    assert reason in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before  # nothing half-written


def test_what_bench_and_compare_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a benchmark may hold, on the screen; and two of them side by side."""
    pruned = np.linspace(4.9, 5.1, 60)
    where = {"cpu": "Orin", "runtime": "tensorrt-8.5.2", "clocks": "floating", "clock_advice": ["sudo jetson_clocks"]}
    spent = GraphEnergy(median=0.25, range=(0.24, 0.26), above_idle=True, with_idle=0.3, watts=9.0)
    result = replace(
        report({"dense": 2 * pruned, "pruned": pruned}, 2, where),
        modes={"plain": summarize(pruned), "cuda_graph": Untimed("it cannot be recorded")},
        energy=Energy({"pruned": spent}, idle_watts=3.5, meter="ina3221", counted=("VDD_IN",)),
        bundle=TimedBundle(precision="fp16", graph_sha256="a"),
    )
    monkeypatch.setattr(api, "bench", lambda bundle, **options: result)
    page = CliRunner().invoke(cli, ["bench", "out", "--energy"])
    for line in (
        "pruned, plain: 5.000 ms",
        "pruned, cuda_graph: it cannot be recorded",
        "Energy: pruned 0.25 J per image above idle (0.24 to 0.26)",
        "Energy: idle 3.50 W, by ina3221: VDD_IN",
        "Clocks: floating; to lock them: sudo jetson_clocks",
    ):
        assert line in page.output
    for name in "ab":
        result.write(tmp_path / f"{name}.json")
    page = CliRunner().invoke(cli, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert page.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.output.splitlines() if "│" in line]
    assert ["runtime", "tensorrt-8.5.2", "tensorrt-8.5.2"] in cells
    assert ["J/image", "0.25", "0.25"] in cells
    assert ["over dense", "2.00", "2.00"] in cells
    assert "no difference is claimed between b.json and a.json" in page.output
    assert "Warning: b.json: its clocks were floating: sudo jetson_clocks" in page.output


def slower() -> Bench:
    """A benchmark whose pruned graph is slower than the dense one."""
    dense = np.linspace(4.9, 5.1, 60)
    return report({"dense": dense, "pruned": 2 * dense}, 1, {"cpu": "x", "runtime": "onnxruntime-cpu"})


def test_a_result_is_printed_and_then_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is on the screen, or the JSON whole, before the status says so."""
    failed = Rung("engine", 4, passed=False, first_offender="logits", reason="off", smallest_atol=0.1)
    monkeypatch.setattr(api, "check", lambda bundle, **options: Parity(1e-4, 1e-5, (failed,)))
    monkeypatch.setattr(api, "bench", lambda bundle, **options: slower())
    for words, status, kind, key in (
        (["check", "out"], 1, "Parity: FAILED (atol 0.0001)", "passed"),
        (["bench", "out"], 2, "Speed: slower than dense: 0.50 times its speed", "verdict"),
    ):
        page = CliRunner().invoke(cli, words)
        assert kind in page.stdout
        assert getattr(page.exception, "exit_code", None) == status
        data = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
        assert data[key] in (False, "slower than dense: 0.50 times its speed")
        assert CliRunner().invoke(cli, [*words, "--quiet"]).stdout == ""
    assert CliRunner().invoke(cli, ["bench", "out", "--allow-slower"]).exception is None


def test_an_export_that_is_not_faster_is_printed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        def to_json(self) -> dict[str, Any]:
            return {"folder": "out"}

    def export(*words: Any, **options: Any) -> None:
        error = NotFasterError("out is published, but the pruned graph is slower")
        error.result = Done()
        raise error

    monkeypatch.setattr(api, "export", export)
    page = CliRunner().invoke(cli, ["export", "quickstart", "-o", "out", "--json"])
    assert json.loads(page.stdout) == {"folder": "out"}
    assert isinstance(page.exception, NotFasterError)


def test_settings_are_values_by_key_or_texts() -> None:
    for settings in (
        {"export.batch": 2, "prune.target": {"gflops": 1.5}},
        ["export.batch=2", "prune.target.gflops=1.5"],
    ):
        recipe = api.recipe("quickstart", settings)
        assert recipe.prune.target is not None
        assert (recipe.export.batch, recipe.prune.target.gflops) == (2, 1.5)
    assert api.recipe("quickstart", "export.batch=3").export.batch == 3  # one text is one setting
    with pytest.raises(InputError, match=r"export\.batch"):
        api.recipe("quickstart", {"export.batch": "many"})


def test_unknown_options_are_usage_errors_with_status_3() -> None:
    done = vitrim("export", "quickstart", "--outt", "x")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    done = vitrim("calibrate", "quickstart", "-o", str(tmp_path / "ro" / "b.json"))
    assert done.returncode == 3
    assert "permission denied" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named() -> None:
    done = subprocess.run(
        f"{sys.executable} -m vitrim.cli recipes > /dev/full", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_new_writes_a_recipe_that_validates(tmp_path: Path) -> None:
    done = vitrim("new", "deit_tiny_patch16_224", "-o", "deit.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = api.recipe(str(tmp_path / "deit.yaml"))
    assert recipe.prune.target is not None
    assert recipe.prune.target.gflops == 0.81
    again = vitrim("new", "deit_tiny_patch16_224", "-o", "deit.yaml", cwd=tmp_path)
    assert again.returncode == 3
    assert "exists" in again.stderr


def test_doctor_and_recipes_speak_json() -> None:
    checks = json.loads(vitrim("doctor", "--json").stdout)
    assert {"torch", "onnxruntime", "tensorrt", "jetson"} <= {check["name"] for check in checks}
    assert "quickstart" in json.loads(vitrim("recipes", "--json").stdout)
    assert vitrim("recipes", "--quiet").stdout == ""


def test_models_lists_what_is_taken() -> None:
    page = CliRunner().invoke(cli, ["models", "vit_tiny_patch16_224", "--json"])
    (family,) = json.loads(page.output)
    assert family["prunable"] == ["vit_tiny_patch16_224"]


def test_methods_are_listed_with_what_can_be_said_to_them() -> None:
    page = CliRunner().invoke(cli, ["methods"]).output
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.splitlines() if "│" in line]
    assert ["frugal (default)", "merged"] in [row[:2] for row in cells]
    assert ["zero_tprune", "dropped"] in [row[:2] for row in cells]
    assert [row[:4] for row in cells if row[1:2] == ["place"]] == [
        ["all", "place", "before_mlp, after_block", '"before_mlp"']  # said once
    ]
    assert ["frugal", "exponent", "number from 0 to 4", "0.75"] in [row[:4] for row in cells]
    assert ["random", "seed", "whole number from 0", "0"] in [row[:4] for row in cells]
    assert "Presets of ppt: ppt-50" in page
    listed = json.loads(CliRunner().invoke(cli, ["methods", "--json"]).output)
    assert listed == api.methods()
    assert [row["name"] for row in listed if row["default"]] == ["frugal"]
    (ppt,) = [row for row in listed if row["name"] == "ppt"]
    assert ppt["presets"] == {
        "ppt-50": "PPT, 50 tokens at blocks 3, 6, 9, threshold 7e-05 (published for DeiT-S at r = 50)"
    }
    quantile = next(field for field in ppt["parameters"] if field["name"] == "quantile")
    assert (quantile["values"], quantile["default"]) == ("number from 0 to 1 or null", None)
