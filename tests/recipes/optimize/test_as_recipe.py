"""A file and its model's name as a recipe; from the file to a pruned bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_files import vit_file

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.recipes.optimize.as_recipe import recipe_for

NAME = "vit_tiny_patch16_224"


def made(recipe: Any = None, settings: Any = (), model: str | None = NAME, **keywords: Any) -> Any:
    return recipe_for("m.onnx", model, recipe, settings, keywords)


def test_keywords_make_a_recipe() -> None:
    found = made(method="frugal", flops_ratio=0.65, target="trt-11", precision="fp16", images="photos")
    assert found.model.onnx == str(Path.cwd() / "m.onnx")
    assert (found.prune.method, found.prune.target.flops_ratio) == ("frugal", 0.65)
    assert (found.export.target, found.precision.name, found.images.path) == (
        "trt-11",
        "fp16",
        str(Path("photos").absolute()),
    )
    assert made(flops_ratio=0.5).images.generator == "noise"
    assert made(preset="evit-0.7", settings=["bench.runs=9"]).bench.runs == 9


@pytest.mark.parametrize("keywords", [{}, {"method": "frugal"}])
def test_how_much_is_asked_for(keywords: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="^how much is to be pruned"):
        made(**keywords)


def test_a_recipe_s_model_is_replaced(tmp_path: Path) -> None:
    found = made("quickstart", model=None, flops_ratio=0.5)
    own = api.recipe("quickstart")
    assert found.model.name == own.model.name
    assert (found.model.checkpoint, found.model.onnx) == (None, str(Path.cwd() / "m.onnx"))
    assert found.prune.target.flops_ratio == 0.5
    assert found.prune.method == own.prune.method  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_file_is_recovered_pruned_and_exported(tmp_path: Path) -> None:
    path, _ = vit_file(tmp_path / "vit.onnx")
    args = {"patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    settings = {
        **{f"model.args.{key}": value for key, value in args.items()},
        "prune.blocks": [0, 1],
        "parity.images": 4,
        "parity.golden": 2,
        "bench.runs": 5,
        "bench.warmup": 0,
        "bench.allow_slower": True,
    }
    done = api.optimize(path, tmp_path / "out", model=NAME, method="frugal", flops_ratio=0.6, settings=settings)
    assert done.parity.passed
    assert done.budget.stages  # type: ignore[union-attr]
    told = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["model"]
    assert told["onnx"] == "vit.onnx"
    assert len(told["sha256"]) == 64
    assert api.check(tmp_path / "out").passed
