"""The model and the images of a recipe: what is refused, and what goes with what."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from helpers import small_recipe
from pydantic import ValidationError

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.schema.load import override, recipe_from
from vitrim.recipes.schema.recipe import json_schema
from vitrim.recipes.schema.sections.inputs import ImagesSection, ModelSection
from vitrim.recipes.schema.sections.section import Section


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (ImagesSection, {"generator": "noise", "count": None}, "count must be a number when images are generated"),
        (ImagesSection, {}, "give exactly one of path, generator; found none of them"),
        (ModelSection, {"name": "a", "random": 0, "pretrained": True}, "found pretrained and random"),
    ],
)
def test_what_is_refused(section: type[Section], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)


def test_random_weights_of_seed_0_are_a_way() -> None:
    assert ModelSection(name="a", random=0).random == 0
    with pytest.raises(ValidationError, match="found none of them"):
        ModelSection(name="a", pretrained=False)


def test_what_is_meant_of_a_checkpoint_goes_with_one() -> None:
    assert ModelSection(name="a", checkpoint="w.pth", ema=False).state is None
    for given in ({"ema": False}, {"state": "teacher"}):
        with pytest.raises(ValidationError, match="says which weights of a checkpoint and goes with it; take it out"):
            ModelSection(name="a", random=0, **given)


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


@pytest.mark.parametrize("section", [{"random": 0}, {"pretrained": True}, {"name": None, "random": 0}])
def test_a_model_without_a_name_needs_a_checkpoint_that_says_it(section: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="name is missing"):
        recipe_from(small_recipe() | {"model": section})
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(small_recipe() | {"model": section})
    assert recipe_from(small_recipe() | {"model": {"checkpoint": "model/"}}).model.name is None
