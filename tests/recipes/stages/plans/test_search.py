"""`prune.search`: who may judge, which study it is, and where it goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pools.choose import Crew
from vitrim.recipes.schema.portable import portable
from vitrim.recipes.schema.sections.prune import PruneSection, SearchSection
from vitrim.recipes.stages.plans.search import check_crew
from vitrim.recipes.stages.stage import plain_value

TARGET = {"flops_ratio": 0.8}


def searched(tmp_path: Path, name: str = "b.json", **search: Any) -> dict[str, Any]:
    recipe = small_recipe(model={"args": small_recipe()["model"]["args"] | {"depth": 6}})
    recipe |= {"prune": {"target": TARGET, "search": search}}
    found: dict[str, Any] = api.calibrate(recipe, tmp_path / name).statistics["search"]
    return found


def test_workers_are_for_a_search_by_optuna() -> None:
    prune = PruneSection.model_validate({"target": TARGET, "search": {"trials": 5, "by": "optuna"}})
    check_crew(prune, Crew(2))
    for search in ({}, {"trials": 5}, {"by": "optuna"}):
        other = PruneSection.model_validate({"target": TARGET, "search": search})
        check_crew(other, Crew(1))
        with pytest.raises(InputError, match=r"set prune\.search\.trials=100 and prune\.search\.by=optuna"):
            check_crew(other, Crew(None, "auto"))


@pytest.mark.parametrize("key", [{"seed": 3}, {"stop": "none"}, {"storage": "a"}])
def test_climb_takes_no_key_of_optuna(key: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is for by: optuna"):
        SearchSection.model_validate(key)
    SearchSection.model_validate({**key, "by": "optuna"})


def test_a_storage_is_found_by_the_recipe_and_told_to_nobody(tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/name"
    (tmp_path / "r.yaml").write_text(
        "model: {name: vit_tiny_patch16_224, random: 0}\nimages: {generator: noise}\n"
        "prune: {target: {flops_ratio: 0.8}, search: {by: optuna, storage: study}}\n"
    )
    recipe = api.recipe(str(tmp_path / "r.yaml"))
    assert recipe.prune is not None
    assert recipe.prune.search.storage == os.path.join(tmp_path, "study")
    other = api.recipe(str(tmp_path / "r.yaml"), {"prune.search.storage": url})
    assert other.prune is not None
    assert other.prune.search.storage == url
    assert "storage" not in portable(other)["prune"]["search"]
    assert plain_value(other, "prune.search") == plain_value(recipe, "prune.search")


def test_climb_says_what_it_saw(tmp_path: Path) -> None:
    found = searched(tmp_path, trials=3)
    assert (found["by"], found["images"]) == ("climb", 6)
    assert found["images_seen"] > 6


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_and_leaves_nothing_beside_the_output(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'vitrim[search]'")
    study = str(tmp_path / "study")
    first = searched(tmp_path, trials=3, by="optuna", storage=study)
    assert (first["judged"], first["workers"], first["seed"], first["stop"]) == (3, 1, 0, "halving")
    size = os.path.getsize(study)
    whole = searched(tmp_path, trials=5, by="optuna", storage=study)
    assert whole == searched(tmp_path, "c.json", trials=5, by="optuna")
    assert os.path.getsize(study) > size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "c.json", "study"]
