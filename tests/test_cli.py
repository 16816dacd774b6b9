"""The command line: light to import, one line an error, the promised exit statuses, and a mirror of the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from warm import vitrim

from vitrim import api
from vitrim.cli import cli

COMMANDS = [
    "export", "calibrate", "slim", "inspect", "lint", "targets", "check", "bench", "compare", "report", "build",
    "recipes", "methods", "models", "new", "clean", "doctor", "optimize", "evaluate", "triton", "profile", "devices",
    "sweep",
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
