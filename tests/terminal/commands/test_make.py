"""Commands that make something: recipes that are whole, settings of a device before a person's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from warm import vitrim

from vitrim import api
from vitrim.cli import cli


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


def test_a_device_s_settings_come_before_a_person_s(monkeypatch: pytest.MonkeyPatch) -> None:
    page = CliRunner().invoke(
        cli, ["export", "quickstart", "-o", "out", "--device", "cpu", "--set", "bench.runs=5", "--print-python"]
    )
    settings = "{'export.target': 'cpu', 'export.batch': 1, 'precision.name': 'auto', 'bench.runs': 5}"
    call = f"api.export('quickstart', 'out', settings={settings}, report=True)"
    assert page.output == f"from vitrim import api\n\n{call}\n"
    heard: list[Any] = []
    monkeypatch.setattr(api, "calibrate", lambda recipe, out, **options: heard.append(options["settings"]))
    words = ["calibrate", "quickstart", "-o", "b.json", "--device", "jetson-orin", "--set", "a.b=1", "--quiet"]
    CliRunner().invoke(cli, words)
    assert heard == [(("export.target", "jetpack-6"), ("export.batch", 1), ("precision.name", "fp16"), "a.b=1")]
