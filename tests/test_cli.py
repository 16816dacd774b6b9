"""The command line: light to import, one line an error, the promised exit statuses, and a mirror of the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from warm import vitrim

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import NotFasterError
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.parity import Parity, Rung

COMMANDS = [
    "export", "calibrate", "slim", "inspect", "lint", "targets", "check", "bench", "compare", "report", "build",
    "recipes", "methods", "models", "new", "clean", "doctor", "optimize", "evaluate", "triton", "sweep",
]  # fmt: skip


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


@pytest.mark.slow
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
        (["sweep", "quickstart", "-o", "o", "--methods", "tomato"], "unknown pruning method 'tomato'"),
        (["calibrate", "quickstart", "-o", "empty"], "is a folder; name the budget file"),
        (["check", "none"], "there is no bundle none"),
        (["check", "empty"], "has no manifest.json"),
        (["bench", "empty"], "has no manifest.json"),
        (["bench", "empty", "-o", "empty/bench.json"], "lies in the bundle, which stays as it was published"),
        (["compare", "empty", "file"], "has no manifest.json"),
        (["compare", "file", "file"], "is not valid JSON"),
        (["compare", "file"], "name at least two benchmarks"),
        (["report", "empty", "-o", "r.html"], "has no manifest.json"),
        (["report", "file", "-o", "r.txt"], "name a file that ends in .html"),
        (["build", "empty"], "has no manifest.json"),
        (["inspect", "file"], "is not a whole ONNX file"),
        (["inspect", "file", "--kernels"], "is no bundle, whose engine's kernels could be listed"),
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


def slower() -> Bench:
    """A benchmark whose pruned graph is slower than the dense one."""
    dense = np.linspace(4.9, 5.1, 60)
    return report({"dense": dense, "pruned": 2 * dense}, 1, {"cpu": "x", "runtime": "onnxruntime-cpu"})


def test_what_only_a_cpu_ran_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"dense": np.linspace(4.9, 5.1, 60), "pruned": np.linspace(9.8, 10.2, 60)}
    where = {"cpu": "x", "runtime": "onnxruntime-cpu", "cpu_only": "the graph is for trt-10.3"}
    monkeypatch.setattr(api, "bench", lambda bundle, **options: report(times, 1, where))
    page = CliRunner().invoke(cli, ["bench", "out"])
    assert page.exit_code == 0
    assert "Note: the graph is for trt-10.3" in page.stdout
    assert "Speed: not judged: 0.50 times" in page.stdout


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


def test_a_result_that_is_printed_is_the_only_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """--json: what failed after its result was printed is said on standard error alone."""
    monkeypatch.setattr(api, "bench", lambda bundle, **options: slower())
    told: dict[str, bool] = {}
    CliRunner().invoke(cli, ["bench", "out", "--json"], obj=told)
    assert told == {"result": True}


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


@pytest.mark.slow
def test_new_writes_a_recipe_that_validates(tmp_path: Path) -> None:
    done = vitrim("new", "deit_tiny_patch16_224", "-o", "deit.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = api.recipe(str(tmp_path / "deit.yaml"))
    assert recipe.prune.target is not None
    assert recipe.prune.target.gflops == 0.81
    again = vitrim("new", "deit_tiny_patch16_224", "-o", "deit.yaml", cwd=tmp_path)
    assert again.returncode == 3
    assert "exists" in again.stderr


@pytest.mark.slow
def test_doctor_and_recipes_speak_json() -> None:
    checks = json.loads(vitrim("doctor", "--json").stdout)
    assert {"torch", "onnxruntime", "tensorrt", "jetson"} <= {check["name"] for check in checks}
    assert "quickstart" in json.loads(vitrim("recipes", "--json").stdout)
    assert vitrim("recipes", "--quiet").stdout == ""


def test_models_lists_what_is_taken() -> None:
    page = CliRunner().invoke(cli, ["models", "vit_tiny_patch16_224", "--json"])
    (family,) = json.loads(page.output)
    assert family["prunable"] == ["vit_tiny_patch16_224"]
