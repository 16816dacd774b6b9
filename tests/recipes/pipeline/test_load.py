"""Recipes: what is refused, with the YAML path, what was found and what is allowed; overrides; the published schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.pipeline.load import (
    find_recipe,
    load_recipe,
    override,
    parse_yaml,
    recipe_from,
    shipped,
    validate,
)
from vitrim.recipes.pipeline.portable import dump_recipe
from vitrim.recipes.pipeline.recipe import json_schema

GOOD = """
model:  {name: vit_tiny_patch16_224, checkpoint: weights.safetensors}
images: {path: photos/, count: 64}
prune:  {method: zero_tprune, target: {gflops: 0.81}}
export: {target: ort-cpu, batch: 1}
parity: {atol: 1e-4}
bench:  {runs: 50}
"""


def test_the_issue_s_example_with_defaults() -> None:
    recipe = validate(parse_yaml(GOOD, "r"), "r")
    assert recipe.parity.atol == 1e-4
    assert (recipe.export.attention, recipe.engine.mode, recipe.prune.stages) == ("auto", "auto", None)
    again = validate(yaml.safe_load(dump_recipe(recipe)), "again")
    assert again == validate(parse_yaml(GOOD.replace("photos/", "photos"), "r"), "r")


@pytest.mark.parametrize("setting", ["prune.remove=5", "prune.keep_rates.1=0.5", "prune.target.flops_ratio=0.7"])
def test_a_key_takes_the_place_of_the_other_ways(setting: str) -> None:
    data = parse_yaml(GOOD.replace("target: {gflops: 0.81}", "preset: evit-0.7"), "r")
    prune = validate(override(data, [setting]), "r").prune
    assert prune.preset is None  # type: ignore[union-attr]
    assert getattr(prune, setting.split(".")[1].split("=")[0]) is not None


def test_another_checkpoint_needs_another_hash() -> None:
    data = parse_yaml(GOOD, "r")
    data["model"]["sha256"] = "0" * 64
    assert validate(override(data, ["model.checkpoint=other.pth"]), "r").model.sha256 is None
    assert validate(override(data, ["bench.runs=9"]), "r").model.sha256 == "0" * 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("runs", "rnus"), r"r\.yaml: bench\.rnus is not a known key; did you mean runs\? \(allowed: runs, warmup"),
        (("runs: 50", "runs: fast"), r"bench\.runs is 'fast': input should be a valid integer"),
        (("runs: 50", "runs: '50'"), r"bench\.runs is '50'"),
        (("runs: 50", "runs: 3"), r"bench\.runs is 3: input should be greater than or equal to 5"),
        (("count: 64", "count: 0"), r"images\.count is 0"),
        (("gflops: 0.81", "gflops: -1"), r"prune\.target\.gflops is -1"),
        (("gflops: 0.81", "gflops: true"), r"prune\.target\.gflops is True"),
        (("gflops: 0.81", "gflops: .nan"), r"prune\.target\.gflops is nan"),
        (("{gflops: 0.81}", "{}"), r"prune\.target: give exactly one of gflops, flops_ratio, speedup; found none"),
        (
            ("target: {gflops: 0.81}", "mass: 0.9, preset: evit-0.7"),
            r"prune: give exactly one of .* preset and mass",
        ),
        (("{path: photos/,", "{"), r"images: give exactly one of path, generator; found none"),
        (("checkpoint: weights.safetensors", "random: 0, pretrained: true"), "found pretrained and random"),
        (("bench:", "bnech:"), r"bnech is not a known key; did you mean bench\?"),
        (("{runs: 50}", "fast"), r"bench is 'fast'"),
        (("target: {gflops: 0.81}", "keep_rates: {3: 1.7}"), r"prune\.keep_rates: block 3 has rate 1\.7"),
    ],
)
def test_mistakes_are_named_by_path(change: tuple[str, str], reason: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(InputError, match=reason):
        validate(parse_yaml(text, "r.yaml"), "r.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", r"r\.yaml: line 1, column \d+: expected"),
        ("a: &x [1]\nb: *x", r"line 2, column 4: aliases \(\*name\) are not allowed"),
        ("a: 1\na: 2", r"line 2, column 1: the key 'a' stands twice"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("a: " * 30 + "1", "mapping values are not allowed|nested more than"),
        ("x" * (1 << 21), "has 2097152 characters"),
        ("- a\n- b", "must be a mapping with the keys model, images"),
        ("", "must be a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_hostile_and_broken_yaml_is_refused_at_once(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_yaml(text, "r.yaml")


def test_a_yaml_bomb_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match="aliases"):
        parse_yaml("\n".join(lines), "bomb.yaml")


def test_overrides_reach_any_key_and_replace_alternatives() -> None:
    data = override(parse_yaml(GOOD, "r"), ["export.batch=8", "prune.keep_rates={3: 0.7}", "model.random=0"])
    recipe = validate(data, "r")
    assert recipe.export.batch == 8
    assert recipe.prune.keep_rates == {3: 0.7}
    assert recipe.prune.target is None
    assert (recipe.model.random, recipe.model.checkpoint) == (0, None)
    assert validate(override(parse_yaml(GOOD, "r"), ["prune.target.speedup=1.5"]), "r").prune.target.gflops is None  # type: ignore[union-attr]
    assert validate(override(parse_yaml(GOOD, "r"), ["parity.atol=1e-3"]), "r").parity.atol == 1e-3


@pytest.mark.parametrize("setting", ["export.batch", "=1", "a..b=1"])
def test_overrides_must_be_settings(setting: str) -> None:
    with pytest.raises(InputError, match="write it as key.path=value"):
        override({}, [setting])


def test_overrides_through_a_value_are_named() -> None:
    with pytest.raises(InputError, match=r"--set bench\.runs\.x: bench\.runs is 50, which has no keys"):
        override(parse_yaml(GOOD, "r"), ["bench.runs.x=1"])


def test_paths_start_at_the_recipe_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    (folder / "photos").mkdir(parents=True)
    (folder / "r.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("recipes/r.yaml")
    assert recipe.images.path == str(folder / "photos")
    (tmp_path / "other").mkdir()
    assert load_recipe("recipes/r.yaml", ["images.path=other"]).images.path == str(tmp_path / "other")
    assert recipe_from(parse_yaml(GOOD, "r")).model.checkpoint == str(tmp_path / "weights.safetensors")


def test_names_of_shipped_recipes(tmp_path: Path) -> None:
    assert "quickstart" in shipped()
    assert find_recipe("quickstart") == shipped()["quickstart"]
    with pytest.raises(InputError, match="did you mean quickstart"):
        find_recipe("quikstart")
    with pytest.raises(InputError, match="is a folder"):
        find_recipe(str(tmp_path))


def test_every_shipped_recipe_is_valid_and_fits_the_published_schema() -> None:
    published = json.loads((Path(find_recipe("quickstart")).parent / "schema.json").read_text())
    assert published == json_schema(), "run: vitrim recipes --schema > recipes/schema.json"
    for name, path in shipped().items():
        load_recipe(name)
        jsonschema.validate(yaml.safe_load(path.read_text()), published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": {"name": "a", "colour": 1}, "images": {}, "prune": {}}, published)
