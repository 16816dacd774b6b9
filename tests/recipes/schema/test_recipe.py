"""The recipe as a model: what it refuses by itself, and what others read off it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import small_recipe
from pydantic import ValidationError

from vitrim.recipes.schema.recipe import Recipe, file_keys, json_schema, named_files, sections
from vitrim.recipes.schema.sections.inputs import OUTCOME_IMAGES, ImagesSection
from vitrim.recipes.schema.sections.prune import TargetSection


def test_a_recipe_has_something_to_do() -> None:
    data = {key: value for key, value in small_recipe().items() if key != "prune"}
    with pytest.raises(ValidationError, match=r"give prune \(fewer tokens\), slim \(fewer heads and neurons\) or both"):
        Recipe.model_validate(data)
    assert Recipe.model_validate(data | {"slim": {"widths": "w.json"}}).prune is None


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe.model_validate(small_recipe())
    with pytest.raises(ValidationError, match="frozen"):
        recipe.bench.runs = 9  # type: ignore[misc]


def test_a_recipe_knows_its_folder_and_keeps_it_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.model_validate(small_recipe())
    assert recipe.folder == tmp_path
    other = recipe.within(Path("/elsewhere"))
    assert (other.folder, recipe.folder) == (Path("/elsewhere"), tmp_path)
    assert other.model_dump() == recipe.model_dump()
    assert str(tmp_path) not in json.dumps(recipe.model_dump(mode="json"))


def test_every_section_has_a_path() -> None:
    found = dict(sections())
    assert found[""] is Recipe
    assert (found["prune.target"], found["evaluate"], found["images"]) == (TargetSection, ImagesSection, ImagesSection)
    assert {"model.preprocess", "slim.masks", "prune.search", "engine"} < set(found)


def test_every_key_that_names_a_file_is_known() -> None:
    assert sorted(file_keys()) == [
        ("evaluate", "classes"),
        ("evaluate", "path"),
        ("images", "classes"),
        ("images", "path"),
        ("model", "checkpoint"),
        ("model", "onnx"),
        ("prune", "budget"),
        ("prune.target", "table"),
        ("slim", "widths"),
    ]


def test_what_plain_data_names_is_found_in_any_section_and_only_there() -> None:
    data = {"images": {"path": "a"}, "model": {"checkpoint": None}, "prune": {"target": {"table": "t"}}, "slim": 3}
    assert [(path, key, section[key]) for section, path, key in named_files(data)] == [
        ("images", "path", "a"),
        ("prune.target", "table", "t"),
    ]


def test_the_schema_is_of_a_recipe_and_refuses_other_keys() -> None:
    schema = json_schema()
    assert (schema["title"], schema["required"]) == ("vitrim recipe", ["model", "images"])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    objects = [schema, *schema["$defs"].values()]
    assert all(one["additionalProperties"] is False for one in objects)


def test_an_outcome_has_more_images_where_nobody_says_how_many() -> None:
    base = small_recipe(images={"count": 7}) | {"evaluate": {"generator": "noise"}}
    asked = Recipe.model_validate(base | {"prune": {"target": {"agreement": 0.97}}})
    assert asked.evaluate is not None
    assert (asked.images.count, asked.evaluate.count) == (7, OUTCOME_IMAGES)
    plain = Recipe.model_validate(base | {"prune": {"target": {"gflops": 0.97}}})
    assert plain.evaluate is not None
    assert plain.evaluate.count == 64
    assert (asked.outcome, plain.outcome) == (("agreement", 0.97), None)
