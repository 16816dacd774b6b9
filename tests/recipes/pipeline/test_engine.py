"""Whether an engine is built here, and what is refused before one is; its proof is held in `test_pack`."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.recipes.pipeline.engine import check_engine, engine_missing
from vitrim.recipes.schema.sections.outputs import EngineSection


def test_an_engine_that_is_required_and_cannot_be_is_an_error() -> None:
    openvino = get_target("openvino")
    assert engine_missing(openvino, "auto") == openvino.no_engine
    assert engine_missing(get_target("trt-11"), "skip") == "skipped by the recipe"
    with pytest.raises(EnvironmentLackError, match="^an engine is required, but none belongs to openvino"):
        engine_missing(openvino, "require")


def test_compute_capabilities_are_refused_early_where_engines_are_for_the_gpu_here(tmp_path: Path) -> None:
    section = EngineSection(capabilities=["8.6"])
    check_engine(section, get_target("trt-rtx"))
    check_engine(EngineSection(), get_target("jetpack-6"))
    for target in ("jetpack-6", "ort-cpu"):
        with pytest.raises(InputError, match=r"engine\.capabilities: those are for the target trt-rtx, and .* is .*"):
            check_engine(section, get_target(target))
    recipe = small_recipe(engine={"capabilities": [8.6]})
    with pytest.raises(InputError, match=r"engine\.capabilities: those are for the target trt-rtx"):
        api.export(recipe, tmp_path / "out")
