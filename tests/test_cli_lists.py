"""Commands that list what there is, as JSON too."""

from __future__ import annotations

import json

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


def test_models_lists_what_is_taken() -> None:
    page = CliRunner().invoke(cli, ["models", "vit_tiny_patch16_224", "--json"])
    (family,) = json.loads(page.output)
    assert family["prunable"] == ["vit_tiny_patch16_224"]
