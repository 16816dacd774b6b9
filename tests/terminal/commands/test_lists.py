"""Commands that list what there is, as JSON too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from warm import vitrim

from vitrim.cli import cli


@pytest.mark.slow
def test_doctor_and_recipes_speak_json() -> None:
    checks = json.loads(vitrim("doctor", "--json").stdout)
    assert {"torch", "onnxruntime", "tensorrt", "jetson"} <= {check["name"] for check in checks}
    assert "quickstart" in json.loads(vitrim("recipes", "--json").stdout)
    assert vitrim("recipes", "--quiet").stdout == ""


def test_models_lists_what_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path))
    page = CliRunner().invoke(cli, ["models", "vit_tiny_patch16_224", "--json"])
    (family,) = json.loads(page.output)
    assert family["prunable"] == ["vit_tiny_patch16_224"]
    drawn = CliRunner().invoke(cli, ["models", "vit_tiny_patch16_224"])
    assert (
        "1 models with pretrained weights: tokens of 1 can be pruned, 1 can be slimmed, 1 of these both" in drawn.output
    )
