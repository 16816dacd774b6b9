"""What a recipe requires: held against what was measured, and what fails is not published but by force."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.exporter.core.errors import InputError, RequirementError
from vitrim.exporter.runtime.bench.report import LATER
from vitrim.recipes.stages.gate import speeds_of


@pytest.mark.slow
def test_what_fails_leaves_the_old_bundle_and_force_says_so(
    made: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made[0].parent, tmp_path, dirs_exist_ok=True)  # the bundle and its cache
    monkeypatch.delenv("VITRIM_STAGES")
    out = tmp_path / "out"
    before = (out / "manifest.json").read_bytes()
    recipe = small_recipe(require={"overhead": 1e-6, "agreement": 0.0})
    with pytest.raises(RequirementError, match=r"out is not published: require\.overhead at most 1e-06: .*--force"):
        api.export(recipe, out, report=True)
    assert (out / "manifest.json").read_bytes() == before
    assert not (tmp_path / "out.html").exists()
    done = api.export(recipe, out, force=True)
    assert done.gate is not None
    assert [(one.key, one.held) for one in done.gate.requirements] == [("agreement", True), ("overhead", False)]
    page = (out / "README.md").read_text()
    assert "**Published by force: what the recipe requires does not hold**" in page
    assert "- Required: overhead at most 1e-06: " in page
    assert api.check(out).passed
    assert done.to_json()["gate"]["passed"] is False


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"require": {"speedup": 1.1}, "export": {"target": "trt-10"}, "bench": {"here": False}},
            "timed on its device",
        ),
        ({"require": {"overhead": 1.1}, "prune": None, "slim": {"target": {"flops_ratio": 0.8}}}, "no prune section"),
        (
            {"require": {"top1_drop": 0.1}, "evaluate": {"generator": "noise"}},
            "require.top1_drop is held against labels, which the images of `evaluate` do not have",
        ),
    ],
)
def test_what_no_run_could_judge_is_refused_first(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        api.export(small_recipe(**sections), tmp_path / "out")


def test_what_was_not_timed_is_not_known(made: tuple[Path, Any]) -> None:
    assert speeds_of(None) == ({}, {"speedup": LATER, "overhead": LATER})
    found, _ = speeds_of(made[1].bench)
    assert (found["speedup"].value, found["overhead"].value) == (made[1].bench.speedup, made[1].bench.overhead)
