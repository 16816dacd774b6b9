"""The recipe as a model: what its sections refuse by themselves, and what others read off them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from helpers import small_recipe
from pydantic import ValidationError

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pipeline.load import override, recipe_from
from vitrim.recipes.pipeline.recipe import (
    OUTCOME_IMAGES,
    BenchSection,
    EngineSection,
    ImagesSection,
    ModelSection,
    PruneSection,
    Recipe,
    Section,
    SlimSection,
    TargetSection,
    file_keys,
    json_schema,
    sections,
)


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (PruneSection, {}, "give exactly one of target, preset, keep_rates, remove, mass, budget; found none of them"),
        (PruneSection, {"mass": 0.5, "preset": "a"}, "mass, budget; found preset and mass"),
        (PruneSection, {"keep_rates": {-1: 0.5}}, r"block -1 has rate 0\.5; blocks count from 0 and rates lie in"),
        (PruneSection, {"keep_rates": {1: 0.0}}, r"block 1 has rate 0\.0"),
        (PruneSection, {"remove": 0}, "0 removes nothing; give a number above 0, or a list of numbers from 0 up"),
        (PruneSection, {"remove": [0, 0]}, r"\[0, 0\] removes nothing"),
        (PruneSection, {"remove": [3, -1]}, r"\[3, -1\] removes nothing"),
        (TargetSection, {"gflops": 1.0, "speedup": 2.0}, "found gflops and speedup"),
        (TargetSection, {"agreement": 0.9, "kl": 0.1, "speedup": 2.0}, "found agreement and kl"),
        (TargetSection, {"agreement": 1.0}, "less than 1"),
        (ImagesSection, {"generator": "noise", "count": None}, "count must be a number when images are generated"),
        (ImagesSection, {}, "give exactly one of path, generator; found none of them"),
        (ModelSection, {"name": "a", "random": 0, "pretrained": True}, "found pretrained and random"),
        (SlimSection, {"widths": "w", "heads": False, "neurons": False}, "heads and neurons are both false"),
        (SlimSection, {"widths": "w", "multiple": 12}, "multiple of 8"),
        (BenchSection, {"runs": 5.0}, "valid integer"),
        (EngineSection, {"capabilities": ["8.7"]}, r"no compute capability '8\.7' \(it has 7\.5, 8\.0, 8\.6, 8\.9"),
        (EngineSection, {"capabilities": [8.6, "8.6"]}, r"named twice: 8\.6, 8\.6"),
        (EngineSection, {"capabilities": [8]}, "valid string"),
        (EngineSection, {"capabilities": 8.6}, "valid list"),
        (BenchSection, {"rounds": 5}, "Extra inputs are not permitted"),
    ],
)
def test_what_sections_refuse(section: type[Section], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)


def test_capabilities_may_be_the_numbers_that_yaml_makes_of_them() -> None:
    assert EngineSection.model_validate({"capabilities": [8.0, "8.6", 12.0]}).capabilities == ["8.0", "8.6", "12.0"]
    assert EngineSection().capabilities == []


def test_random_weights_of_seed_0_are_a_way() -> None:
    assert ModelSection(name="a", random=0).random == 0
    with pytest.raises(ValidationError, match="found none of them"):
        ModelSection(name="a", pretrained=False)


def test_what_is_meant_of_a_checkpoint_goes_with_one() -> None:
    assert ModelSection(name="a", checkpoint="w.pth", ema=False).state is None
    for given in ({"ema": False}, {"state": "teacher"}):
        with pytest.raises(ValidationError, match="says which weights of a checkpoint and goes with it; take it out"):
            ModelSection(name="a", random=0, **given)


def test_a_list_that_removes_something_somewhere_is_taken() -> None:
    assert PruneSection(remove=[0, 3]).remove == [0, 3]


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


def test_every_key_says_what_it_is_and_every_way_is_a_key() -> None:
    for path, section in sections():
        assert set(section.ways) <= set(section.model_fields), path
        assert set(section.bound) <= set(section.model_fields), path
        for name, field in section.model_fields.items():
            inner = any(f"{path}.{name}".lstrip(".") == other for other, _ in sections())
            described = inner or (path, name) in {("model", "name")} or bool(field.description)
            assert described, f"{path}.{name}"


def test_the_schema_is_of_a_recipe_and_refuses_other_keys() -> None:
    schema = json_schema()
    assert (schema["title"], schema["required"]) == ("vitrim recipe", ["model", "images"])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    objects = [schema, *schema["$defs"].values()]
    assert all(one["additionalProperties"] is False for one in objects)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mean", [123.675, 116.28, 103.53], r"of pixels from 0 to 255 it is \[0\.485, 0\.456, 0\.406\]"),
        ("std", [58.395, 57.12, 57.375], r"of pixels from 0 to 255 it is \[0\.229, 0\.224, 0\.225\]"),
        ("mean", [0.5, float("nan"), 0.5], "give a number for every channel"),
        ("std", [0.5, float("inf"), 0.5], "give a number for every channel"),
        ("std", [0.5, 0.0, 0.5], "deviations must be above 0"),
        ("std", [0.5, -0.1, 0.5], "deviations must be above 0"),
        ("std", [1e-9] * 3, "pixels of 8 bits have steps of"),
        ("mean", [-0.1, 0.5, 0.5], "means lie from 0 to 1"),
        ("mean", [10**400, 0, 0], "the number is too large"),
        ("mean", [], "at least 1 item"),
        ("mean", 0.5, "valid list"),
        ("mean", ["0.5"] * 3, "valid number"),
        ("mean", [True] * 3, "valid number"),
        ("crop_pct", float("nan"), "input should be"),
        ("crop_pct", 1e-6, "greater than or equal to 0.1"),  # would be scaled up out of memory first
        ("crop_pct", 1.5, "less than or equal to 1"),
    ],
)
def test_preprocessing_on_another_scale_is_refused_by_its_key(key: str, value: Any, said: str) -> None:
    data = small_recipe()
    data["model"] = data["model"] | {"preprocess": {key: value}}
    with pytest.raises(InputError, match=rf"model\.preprocess\.{key}.*{said}") as caught:
        recipe_from(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", [{"generator": "noise"}, {"given": True}])
def test_a_class_file_goes_with_a_path(way: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="images: classes names class folders and goes with path; take it out"):
        recipe_from(small_recipe() | {"images": way | {"classes": "a.txt"}})


def test_a_generator_takes_the_place_of_a_path_and_its_class_file() -> None:
    data = small_recipe() | {"images": {"path": "photos", "classes": "a.txt"}}
    images = override(data, ["images.generator=noise"])["images"]
    assert images == {"generator": "noise"}
    assert override(data, ["images.path=other"])["images"] == {"path": "other", "classes": "a.txt"}


NUMBERS = [
    (section, name)
    for _, section in sections()
    for name, field in section.model_fields.items()
    if {int, float} & {field.annotation, *getattr(field.annotation, "__args__", ())}
]


def test_every_number_of_a_recipe_has_an_upper_bound_that_the_schema_has_too() -> None:
    assert len(NUMBERS) > 35
    schemas = json_schema()["$defs"]
    for section, name in NUMBERS:
        for giant in (10**12, 1e300, 10**400):
            with pytest.raises(ValidationError, match=name):
                section.model_validate({name: giant})
        known = schemas[section.__name__]["properties"][name]
        for part in known.get("anyOf", [known]):
            if part["type"] in ("integer", "number"):
                assert {"maximum", "exclusiveMaximum"} & {*part, *known}, (section, name)


def test_numbers_that_are_none_are_refused() -> None:
    for section, name in NUMBERS:
        for strange in (float("nan"), float("inf")):
            with pytest.raises(ValidationError, match=name):
                section.model_validate({name: strange})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"depth": 10**9}, r"args\n.*depth is 1000000000; it lies from 1 to 1024"),
        ({"embed_dim": 10**300}, r"embed_dim is 10*\.\.\.; it lies from 1 to 65536"),
        ({"img_size": 10**6}, "img_size is 1000000; it lies from 1 to 16384"),
        ({"img_size": [224, 10**12]}, "img_size is 1000000000000; it lies from 1 to 16384"),
        ({"num_classes": 10**400}, r"num_classes is 10*\.\.\.; it lies from 0 to 1000000"),
        ({"num_heads": float("nan")}, "num_heads is nan; give a whole number"),
        ({"mlp_ratio": -(10**9)}, "mlp_ratio is -1000000000; it lies from 0 to 16384"),
        ({"anything": [10**9]}, "anything is 1000000000; it lies from 0 to 16384"),
    ],
)
def test_a_model_of_a_billion_is_a_slip(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSection(name="a", random=0, args=args)
    held = json_schema()["$defs"]["ModelSection"]["properties"]["args"]
    (value,) = args.values()
    if value == value:  # JSON has no NaN
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(args, held)
    jsonschema.validate({"depth": 12, "img_size": [224, 224], "act_layer": "gelu", "class_token": False}, held)


def test_no_model_has_a_billion_tokens() -> None:
    for remove in (10**9, [3, 10**9]):
        with pytest.raises(ValidationError, match="1000000000 is above 1000000; no model has as many tokens"):
            PruneSection(remove=remove)


@pytest.mark.parametrize("section", [{"random": 0}, {"pretrained": True}, {"name": None, "random": 0}])
def test_a_model_without_a_name_needs_a_checkpoint_that_says_it(section: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="name is missing"):
        recipe_from(small_recipe() | {"model": section})
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(small_recipe() | {"model": section})
    assert recipe_from(small_recipe() | {"model": {"checkpoint": "model/"}}).model.name is None


@pytest.mark.parametrize(
    ("target", "fits"),
    [
        ({"agreement": 0.97}, True),
        ({"agreement": 0.97, "speedup": 1.5}, True),
        ({"speedup": 1.5}, True),
        ({"gflops": 0.8, "speedup": 1.5}, False),
        ({"agreement": 0.97, "kl": 0.1}, False),
        ({}, False),
    ],
)
def test_the_schema_knows_that_a_speed_may_be_a_wish(target: dict[str, float], fits: bool) -> None:
    recipe = small_recipe() | {"prune": {"target": target}}
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(recipe) is fits


def test_an_outcome_has_more_images_where_nobody_says_how_many() -> None:
    base = small_recipe(images={"count": 7}) | {"evaluate": {"generator": "noise"}}
    asked = Recipe.model_validate(base | {"prune": {"target": {"agreement": 0.97}}})
    assert asked.evaluate is not None
    assert (asked.images.count, asked.evaluate.count) == (7, OUTCOME_IMAGES)
    plain = Recipe.model_validate(base | {"prune": {"target": {"gflops": 0.97}}})
    assert plain.evaluate is not None
    assert plain.evaluate.count == 64
    assert (asked.outcome, plain.outcome) == (("agreement", 0.97), None)
