"""What the shell completes is what there is, in words that a shell takes, and fast."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import yaml
from click.shell_completion import ShellComplete

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.pruning.methods import METHODS
from vitrim.recipes.schema.load import shipped
from vitrim.terminal.complete import _methods, _models


def completed(*words: str, begun: str = "") -> list[str]:
    found = ShellComplete(cli, {}, "vitrim", "_VITRIM_COMPLETE").get_completions(list(words), begun)
    return [item.value for item in found if item.type == "plain"]


@pytest.mark.parametrize(
    ("words", "begun", "some"),
    [
        (("export",), "", set(api.recipes())),
        (("calibrate",), "quickstart-s", {"quickstart-slim"}),
        (("export",), "dinov", {"dinov2-small", "dinov3-small"}),
        (("export", "quickstart", "--device"), "", {"cpu", "desktop-gpu", "jetson-orin"}),
        (("export", "quickstart", "--set"), "prune.target.", {"prune.target.gflops=", "prune.target.speedup="}),
        (("export", "quickstart", "--set"), "export.target=jetpack-7", {"export.target=jetpack-7.2"}),
        (("export", "quickstart", "--set"), "prune.method=z", {"prune.method=zero_tprune"}),
        (("export", "quickstart", "--set"), "precision.name=b", {"precision.name=bf16"}),
        (("export", "quickstart", "--set"), "model.pretrained=", {"model.pretrained=true", "model.pretrained=false"}),
        (("export", "quickstart", "--set"), "export.batch=", set()),
        (("export", "quickstart", "--set"), "no.such=", set()),
        (("lint", "out/", "--target"), "trt-8", {"trt-8.5", "trt-8.6"}),
        (("new", "vit", "--target"), "cp", {"cpu"}),
        (("new",), "deit3_small_patch16_2", {"deit3_small_patch16_224"}),
        (("optimize", "m.onnx", "--method"), "to", {"tofu", "tome"}),
        (("sweep", "my.yaml", "--methods"), "to", {"tofu", "tome"}),
        (("sweep", "my.yaml", "--methods"), "tofu,to", {"tofu,tome"}),
        (("sweep", "my.yaml", "--precisions"), "fp32,i", {"fp32,int8"}),
        (("new", "vit", "--precision"), "", {"fp32", "fp16", "bf16", "int8", "auto"}),
    ],
)  # fmt: skip
def test_it_completes(words: tuple[str, ...], begun: str, some: set[str]) -> None:
    found = completed(*words, begun=begun)
    assert some <= set(found)
    assert all(word.startswith(begun) for word in found)
    assert bool(found) == bool(some)


def test_files_are_completed_beside_recipes() -> None:
    found = ShellComplete(cli, {}, "vitrim", "_VITRIM_COMPLETE").get_completions(["export"], "my")
    assert [(item.value, item.type) for item in found] == [("my", "file")]


def test_names_read_from_sources_are_those_that_there_are() -> None:
    assert _methods() == sorted(METHODS)
    assert set(timm.list_models()) <= set(_models())


def test_the_keys_of_the_recipes_that_ship_are_offered() -> None:
    offered = {key.rstrip("=") for key in completed("export", "x", "--set")}

    def leaves(held: Any, before: str = "") -> Iterator[str]:
        for key, value in held.items():
            if isinstance(value, dict) and value and f"{before}{key}" not in offered:
                yield from leaves(value, f"{before}{key}.")
            else:
                yield f"{before}{key}"

    for path in shipped().values():
        assert set(leaves(yaml.safe_load(path.read_text("utf-8")))) <= offered


def test_a_shell_asks_it_and_torch_is_not_imported() -> None:
    code = (
        "import sys; from vitrim.cli import main\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    environment = {
        **os.environ,
        "_VITRIM_COMPLETE": "bash_complete",
        "COMP_WORDS": "vitrim new vit_tiny_patch16",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "plain,vit_tiny_patch16_224" in done.stdout.splitlines()
    assert done.stderr.strip() == "False"
