"""`vitrim optimize` on a screen, as JSON, and as Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from foreign_files import cnn

from vitrim.cli import cli

QUICK = [
    "--allow-slower", "--engine", "skip", "--set", "bench.runs=5", "--set", "bench.warmup=0", "--set",
    "parity.images=4",
]  # fmt: skip


@pytest.mark.slow
def test_a_file_is_optimised_and_the_screen_says_how(tmp_path: Path) -> None:
    words = ["optimize", str(cnn(tmp_path / "m.onnx")), "-o", str(tmp_path / "out"), *QUICK]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "Parity: passed" in done.output
    assert "dense is the file as it came, pruned the optimised graph." in done.output
    assert f"Bundle: {tmp_path / 'out'}" in done.output.replace("\n", "")
    found = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(found.stdout)["input"] == "pixels"


def test_it_is_a_call_of_the_api() -> None:
    words = ["optimize", "m.onnx", "-o", "out", "--as", "vit_small_patch16_224", "--flops-ratio", "0.65"]
    shown = CliRunner().invoke(cli, [*words, "--print-python"])
    wanted = "api.optimize('m.onnx', 'out', model='vit_small_patch16_224', flops_ratio=0.65)"
    assert wanted in shown.output
