"""What a bundle says of the machine that made it: nothing."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from helpers import small_recipe

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.schema.load import load_recipe, parse_yaml, recipe_from
from vitrim.recipes.schema.own_files import inputs_of
from vitrim.recipes.schema.portable import dump_recipe, portable, portable_command, portable_path

GOOD = """
model:  {name: vit_tiny_patch16_224, checkpoint: weights.safetensors}
images: {path: photos/, count: 64}
prune:  {method: zero_tprune, target: {gflops: 0.81}}
"""


def test_a_recipe_for_another_machine_names_no_path_of_this_one(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "photos").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "r.yaml").write_text(GOOD)
    (tmp_path / "outside").mkdir()
    recipe = load_recipe(str(folder / "r.yaml"), [f"evaluate.path={tmp_path / 'outside'}"])
    data = portable(recipe)
    assert (data["model"]["checkpoint"], data["images"]["path"]) == ("weights.safetensors", "photos")
    assert data["evaluate"]["path"] == "outside"
    assert data["model"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert str(tmp_path) not in dump_recipe(recipe)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "outside").mkdir()
    (moved / "recipe.yaml").write_text(dump_recipe(recipe))
    there = load_recipe(str(moved / "recipe.yaml"))
    assert there.model.checkpoint == str(moved / "weights.safetensors")
    assert there.evaluate.path == str(moved / "outside")  # type: ignore[union-attr]


def test_what_ships_is_named_so_and_found_on_any_machine(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("quickstart"))
    assert "shipped:quickstart/weights.safetensors" in text
    (tmp_path / "recipe.yaml").write_text(text)
    assert Path(str(load_recipe(str(tmp_path / "recipe.yaml")).model.checkpoint)).is_file()
    for wrong in ("shipped:nothing.safetensors", "shipped:../pyproject.toml"):
        with pytest.raises(InputError, match="no such file comes with vitrim"):
            recipe_from(parse_yaml(GOOD.replace("weights.safetensors", wrong), "r"))


def test_a_command_for_another_machine() -> None:
    command = ["/home/me/bin/vitrim", "export", "r.yaml", "-o", "/tmp/out", "--set", "images.path=/data/photos"]
    assert portable_command(command) == ["vitrim", "export", "r.yaml", "-o", "out", "--set", "images.path=photos"]


def test_paths_outside_the_folder_are_cut_to_their_name(tmp_path: Path) -> None:
    assert portable_path(str(tmp_path / "a" / "b"), tmp_path) == "a/b"
    assert portable_path("a/b", tmp_path) == "a/b"
    assert portable_path(str(tmp_path), tmp_path) == tmp_path.name
    assert portable_path("/data/photos", tmp_path) == "photos"


def test_what_a_bundle_carries_is_named_as_it_lies_there() -> None:
    recipe = recipe_from(small_recipe(slim={"widths": "/x/w.json"}) | {"prune": {"budget": "/home/me/b.json"}})
    data = portable(recipe)
    assert (data["prune"]["budget"], data["slim"]["widths"]) == ("budget.json", "widths.json")
    given = portable(recipe_from(small_recipe() | {"prune": {"given": True}}))
    assert (given["prune"]["budget"], given["prune"]["given"]) == ("budget.json", False)


def test_a_name_on_the_hub_means_the_same_everywhere(tmp_path: Path) -> None:
    name = "hf-hub:me/vit@main"
    recipe = recipe_from(small_recipe() | {"model": {"checkpoint": name}})
    assert recipe.model.checkpoint == name
    assert portable(recipe)["model"]["checkpoint"] == name
    assert "the recipe's model.checkpoint" not in inputs_of(recipe)
