"""What the ways to a budget look at: the method, its parameters, its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_vit

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import DEFAULT
from vitrim.exporter.pruning.shape import describe
from vitrim.recipes.listener import Silence
from vitrim.recipes.schema.sections.prune import PruneSection
from vitrim.recipes.stages.plans.planning import Planning


def planning(folder: Path, **prune: Any) -> Planning:
    """Of the small model, without images."""
    model = small_vit()
    shape = describe(model)
    section = PruneSection.model_validate(prune)
    return Planning(section, 1, 1, model, shape, model, shape, None, folder, Silence())


def test_a_preset_says_the_method_and_a_section_s_parameters_stand_over_its_own(tmp_path: Path) -> None:
    assert planning(tmp_path, remove=1).method.name == DEFAULT
    assert planning(tmp_path, remove=1, method="tome").method.name == "tome"
    plan = planning(tmp_path, preset="evit-0.7", parameters={"fuse": True})
    assert plan.preset is not None
    assert plan.method.name == plan.preset.method == "evit"
    assert (plan.parameters["fuse"], plan.parameters["place"]) == (True, "before_mlp")


def test_without_images_there_are_no_scores_and_what_needs_them_says_so(tmp_path: Path) -> None:
    plan = planning(tmp_path, remove=1, method="evit")
    assert plan.scores is None
    with pytest.raises(InputError, match="^prune.mass is decided on images: give images="):
        plan.images_for("prune.mass")


def test_stages_sit_where_the_section_says(tmp_path: Path) -> None:
    plan = planning(tmp_path, target={"flops_ratio": 0.7}, method="evit", blocks=[1, 3])
    assert [stage.block for stage in plan.rule.stages] == [1, 3]
