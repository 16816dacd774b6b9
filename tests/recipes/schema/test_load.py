"""Recipes: what is refused, with the YAML path, what was found and what is allowed; overrides; the published schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import timm
import torch
import yaml
from helpers import ends_in_a_line
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import group_of
from vitrim.exporter.pruning.methods import DEFAULT, get_method
from vitrim.exporter.pruning.methods.options import parse_parameters
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.units import refuse_slimming
from vitrim.recipes.schema.load import (
    device_settings,
    devices,
    find_recipe,
    load_recipe,
    override,
    parse_yaml,
    recipe_from,
    shipped,
    validate,
)
from vitrim.recipes.schema.portable import dump_recipe
from vitrim.recipes.schema.recipe import json_schema, sections
from vitrim.recipes.stages.precision import check_precision

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
        (
            ("{gflops: 0.81}", "{}"),
            r"prune\.target: give exactly one of gflops, flops_ratio, speedup, latency_ms, agreement, top1_drop, kl; f",
        ),
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
        (
            "!!python/object/apply:os.system ['true']",
            r"column 1: tags such as !!python/object/apply:os\.system are",
        ),
        ("a: !!bool x", "line 1, column 4: tags such as !!bool are not allowed in a recipe; write the value by itself"),
        ("a: !!timestamp x", "tags such as !!timestamp are not allowed"),
        ("a: !!binary x", "tags such as !!binary"),
        ("a: !!set {a, b}", "tags such as !!set"),
        ("a: !!omap [a: 1]", "tags such as !!omap"),
        ("a: !!pairs [a: 1]", "tags such as !!pairs"),
        ("!!map [a]", "tags such as !!map"),
        ("a: !x 1", "tags such as !x are"),
        ("a: ! 1", "tags such as ! are"),
        ("!!str a: 1", "tags such as !!str"),
        ("a: !" + "x" * 5000, r"tags such as !x+\.\.\. are"),
        ("a:\n  <<: {b: 1}", r"line 2, column 3: merges \(<<\) are not allowed"),
        ("? [a]\n: 1", "keys must be names"),
        ("? {a: 1}\n: 1", "keys must be names"),
        ("a: 1\n---\nb: 2", r"line 2, column 1: a second document \(---\) begins; a recipe is one"),
        ("---\n", "must be a mapping"),
        ("a: " + "9" * 5000, r"line 1, column 4: 9+\.\.\. is too large a number"),
        ("a: -9223372036854775809", "is too large a number"),
        ("a: 9223372036854775807", None),
        ("a: \x1b[31m", "unacceptable character #x001b"),
        ('a: "\\0"', r"r\.yaml: a: '\\x00' holds a character that is none of a text"),
        ('a: ["\\ud800"]', r"r\.yaml: a\[0\]: '\\ud800' holds"),
        ('"\\0": 1', "holds a character that is none of a text"),
        ('a: {"x\\e[31m": 1, "x\\e[31m": 2}', r"the key 'x\\x1b\[31m' stands twice"),
        ("a: 1\n" + "k" * 400 + ": 1\n" + "k" * 400 + ": 1", r"the key 'k+\.\.\. stands twice"),
        ("[" * 5000, "nested too deeply"),
        ("a: " * 30 + "1", "mapping values are not allowed|nested more than"),
        ("x" * (1 << 21), "has 2097152 characters"),
        ("- a\n- b", "must be a mapping with the keys model, images"),
        ("", "must be a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_hostile_and_broken_yaml_is_refused_at_once(text: str, reason: str | None) -> None:
    if reason is None:
        assert parse_yaml(text, "r.yaml")
        return
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


# By section, a value of every way.
WAYS: dict[str, dict[str, Any]] = {
    "model": {"checkpoint": "w.pth", "onnx": "dense.onnx", "pretrained": True, "random": 0, "given": True},
    "images": {"path": "photos", "generator": "shapes", "given": True},
    "evaluate": {"path": "photos", "generator": "noise", "given": True},
    "prune": {
        "target": {"gflops": 0.8},
        "preset": "evit-0.7",
        "keep_rates": {3: 0.7},
        "remove": 5,
        "mass": 0.9,
        "budget": "b.json",
        "given": True,
    },
    "prune.target": {
        "gflops": 0.8,
        "flops_ratio": 0.7,
        "speedup": 1.5,
        "latency_ms": 12.0,
        "agreement": 0.97,
        "top1_drop": 0.01,
        "kl": 0.02,
    },
    "slim": {"target": {"flops_ratio": 0.8}, "widths": "w.json"},
    "slim.target": {"gflops": 0.8, "flops_ratio": 0.7, "parameters_ratio": 0.5},
}
BESIDE = {"latency_ms": {"table": "t.json"}}  # what a way does not go without
PAIRS = [(path, old, new) for path, ways in WAYS.items() for old in ways for new in ways if old != new]


def holder(data: dict[str, Any], path: str) -> dict[str, Any]:
    """The section at a path, made where it is not there."""
    for key in path.split("."):
        data = data.setdefault(key, {})
    return data


def with_way(path: str, key: str) -> dict[str, Any]:
    """A recipe whose section goes one way."""
    data = parse_yaml(GOOD, "r")
    for other in WAYS[path]:
        holder(data, path).pop(other, None)
    holder(data, path).update({key: WAYS[path][key], **BESIDE.get(key, {})})
    return data


def as_yaml(value: Any) -> str:
    """A value as a person writes it after `--set KEY=`."""
    return str(value).replace("'", "") if isinstance(value, dict) else json.dumps(value)


def test_every_section_with_ways_is_tried() -> None:
    assert set(WAYS) == {path for path, section in sections() if section.ways}
    assert all(set(WAYS[path]) == set(section.ways) for path, section in sections() if section.ways)


def stand_beside(path: str, one: str, other: str) -> bool:
    """Whether a way is a wish where the other one is given."""
    beside = dict(sections())[path].beside
    return one in beside.get(other, ()) or other in beside.get(one, ())


@pytest.mark.parametrize(("path", "old", "new"), [pair for pair in PAIRS if stand_beside(*pair)])
def test_a_wish_takes_no_place(path: str, old: str, new: str) -> None:
    found = override(with_way(path, old), [f"{path}.{new}={WAYS[path][new]}"])
    assert at(validate(found, "r"), path).outcome == next(
        (key, WAYS[path][key]) for key in (old, new) if key != "speedup"
    )
    assert at(validate(found, "r"), path).speedup == 1.5


@pytest.mark.parametrize(("path", "old", "new"), [pair for pair in PAIRS if not stand_beside(*pair)])
def test_a_new_way_takes_the_place_of_the_old_one(path: str, old: str, new: str) -> None:
    data, value = with_way(path, old), WAYS[path][new]
    before = json.dumps(data)
    for setting in (f"{path}.{new}={as_yaml(value)}", (f"{path}.{new}", value)):
        found = override(data, [setting, *((f"{path}.{key}", one) for key, one in BESIDE.get(new, {}).items())])
        ways = {key: one for key, one in holder(found, path).items() if key in WAYS[path]}
        assert ways == {new: value}
        validate(found, "r")
    both = [f"{path}.{key}={as_yaml(WAYS[path][key])}" for key in (old, new)]
    assert set(holder(override(parse_yaml(GOOD, "r"), both), path)) & set(WAYS[path]) == {new}
    assert json.dumps(data) == before


@pytest.mark.parametrize(("path", "old", "new"), PAIRS)
def test_null_and_false_choose_no_way(path: str, old: str, new: str) -> None:
    data = with_way(path, old)
    nothing = "false" if isinstance(WAYS[path][new], bool) else "null"
    found = override(data, [f"{path}.{new}={nothing}"])
    assert getattr(at(validate(found, "r"), path), old) == getattr(at(validate(data, "r"), path), old)
    with pytest.raises(InputError, match="found none of them"):
        validate(override(data, [f"{path}.{old}={'false' if isinstance(WAYS[path][old], bool) else 'null'}"]), "r")


def at(recipe: Any, path: str) -> Any:
    """The section of a recipe at a path."""
    for key in path.split("."):
        recipe = getattr(recipe, key)
    return recipe


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["prune.keep_rates.1=0.5"], {"keep_rates": {1: 0.5}}),
        (["prune.keep_rates.1=0.5", "prune.keep_rates.3=0.25"], {"keep_rates": {1: 0.5, 3: 0.25}}),
        (["prune.keep_rates.1=0.5", "prune.remove=3"], {"remove": 3}),
        (["prune.remove=3", "prune.keep_rates.1=0.5"], {"keep_rates": {1: 0.5}}),
        (["prune.target.speedup=1.5", "prune.target.gflops=0.5"], {"target": {"gflops": 0.5}}),
        (["prune.target=flops_ratio: 0.7"], {"target": {"flops_ratio": 0.7}}),
        (["prune.remove=[3, 4]"], {"remove": [3, 4]}),
        (["prune.target.gflops=null"], {"preset": "evit-0.7"}),
        (["prune.search.trials=null", "prune.mass=0.9"], {"mass": 0.9}),
        (["prune={mass: 0.9}"], {"mass": 0.9}),
        (["prune.method=evit"], {"preset": "evit-0.7", "method": "evit"}),
        (["prune.preset=tome-r8", "prune.parameters.place=after_block"],
         {"preset": "tome-r8", "parameters": {"place": "after_block"}}),
        (["prune.parameters.place=after_block", "prune.preset=tome-r8"],
         {"preset": "tome-r8", "parameters": {"place": "after_block"}}),
    ],
)  # fmt: skip
def test_settings_over_a_preset(words: list[str], found: dict[str, Any]) -> None:
    data = parse_yaml(GOOD.replace("method: zero_tprune, target: {gflops: 0.81}", "preset: evit-0.7"), "r")
    assert override(data, words)["prune"] == found


def test_a_hash_that_is_given_beside_its_checkpoint_stays() -> None:
    hashed, named = f"model.sha256={'a' * 64}", "model.checkpoint=x.pth"
    for words in ([hashed, named], [named, hashed]):
        assert override(parse_yaml(GOOD, "r"), words)["model"]["sha256"] == "a" * 64


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("export.batch", "write it as key.path=value"),
        ("=5", "write it as key.path=value"),
        ("a..b=1", "write it as key.path=value"),
        (".".join("a" * 10_000) + "=1", r"--set a\.a[.a]*\.\.\.: nested more than 20 deep"),
        ("export.batch=" + "9" * 5000, "is too large a number"),
        ("export.batch=8\nfoo: 1", "--set export.batch: line 2"),
        ("export.batch=8\n---\n9", "a second document"),
        ("images.path=#photos", "# is a comment to YAML"),
        ("images.path=my photos #1", "# is a comment to YAML"),
        ("export.batch=!!int 8", "tags such as !!int are not allowed"),
        ("export.batch=&a 8", None),
        ("export.batch=*a", "aliases"),
        ("prune.keep_rates.²=0.5", r"prune\.keep_rates\.²"),
        ("prune.keep_rates.٣=0.5", "prune.keep_rates"),
        ("prune.keep_rates." + "1" * 5000 + "=0.5", "prune.keep_rates"),
        ("prune.keep_rates.-1=0.5", "prune.keep_rates"),
        ("bench.runs=5" + " " * 100_000 + "x", "bench.runs"),
        ("x" * 100_000 + "=1", r"x+\.\.\. is not a known key"),
        ("bench.\x1b[31m=1", r"bench\.\\x1b\[31m is not a known key"),
        ("bench.runs=\x1b[31m", "unacceptable character"),
        ('bench.runs="\\e[31m"', r"bench\.runs is '\\x1b\[31m'"),
        ("model.random=1:30", "model.random is '1:30'"),
        ("model.random=010", "model.random is '010'"),
        ("model.random=0x10", "model.random is '0x10'"),
        ("model.random=1_000", "model.random is '1_000'"),
        ("model.random=2001-01-01", "model.random is '2001-01-01'"),
        ("prune.target.gflops=1e999", "prune.target.gflops is inf: input should be a finite number"),
        ("prune.target.gflops=.inf", "is inf"),
        ("prune.target.gflops=-.inf", "is -inf"),
        ("parity.atol=.nan", "is nan"),
        ("parity.atol=.inf", "is inf"),
        ("model.preprocess.mean=[.nan, 0, 0]", "give a number for every channel"),
        ("prune.keep_rates={1: .inf}", "is inf"),
        ("images.path=a\0b", "unacceptable character"),
    ],
)  # fmt: skip
def test_settings_that_say_nothing_useful_are_named_in_one_line(setting: str, said: str | None) -> None:
    data = parse_yaml(GOOD, "r")
    if said is None:
        validate(override(data, [setting]), "r")
        return
    with pytest.raises(InputError, match=said) as caught:
        validate(override(data, [setting]), "r")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_files_in_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_recipe(str(path)).bench.runs == 50
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path.write_bytes(GOOD.encode(encoding))
        with pytest.raises(InputError, match=r"r\.yaml.*(it is not a text file|unacceptable character #x0000)"):
            load_recipe(str(path))


def test_names_that_no_file_can_have_are_one_line(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b", "a\nb", "\x1b[31m", ""):
        with pytest.raises(InputError, match="there is no recipe file|is a folder") as caught:
            find_recipe(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
    data = parse_yaml(GOOD, "r") | {"images": {"path": "x" * 5000}}
    assert recipe_from(data).images.path.endswith("x" * 5000)  # type: ignore[union-attr]
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="it is a FIFO; give the recipe itself"):
        load_recipe(str(tmp_path / "fifo"))


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


MODELS = sorted(name for name, path in shipped().items() if path.parent.name == "models")


def test_ten_well_known_models_ship_for_three_devices() -> None:
    assert len(MODELS) == 10
    assert sorted(devices()) == ["cpu", "desktop-gpu", "jetson-orin"]


@pytest.mark.parametrize("name", MODELS)
def test_the_recipe_of_a_model_fits_it_on_every_device(name: str) -> None:
    for device in devices():
        recipe = load_recipe(name, [*device_settings(device).items()])
        check_precision(recipe.precision, group_of(recipe.export.target)[0])
    assert recipe.model.name is not None
    assert timm.models.is_model_pretrained(recipe.model.name)
    with torch.device("meta"):
        model: Any = timm.create_model(recipe.model.name, pretrained=False, **recipe.model.args)
    if recipe.prune is None:
        assert recipe.slim is not None
        assert refuse_slimming(model) is None
        return
    shape = describe(model)
    wanted = 0.65 * model_macs(shape, dense_plan(shape))
    parameters = parse_parameters(get_method(DEFAULT), {}).model_dump()
    budget = from_target(shape, DEFAULT, parameters, wanted, default_rule(shape, DEFAULT, parameters))
    assert 0.99 * wanted < total_macs(shape, budget) <= wanted


def test_a_device_is_settings_and_a_person_s_win(tmp_path: Path) -> None:
    assert device_settings("jetson-orin") == {
        "export.target": "jetpack-6",
        "export.batch": 1,
        "precision.name": "fp16",
    }
    recipe = load_recipe("quickstart", [*device_settings("jetson-orin").items(), "export.batch=8"])
    assert (recipe.export.target, recipe.export.batch, recipe.precision.name) == ("jetpack-6", 8, "fp16")
    own = tmp_path / "mine.yaml"
    own.write_text("export: {target: jetpack-5}\nbench: {runs: 5}\n")
    assert device_settings(str(own)) == {"export.target": "jetpack-5", "bench.runs": 5}
    own.write_text("export: jetpack-5\n")
    with pytest.raises(InputError, match=r"mine\.yaml: export: must be a section with keys"):
        device_settings(str(own))
    with pytest.raises(InputError, match=r"no device 'jetson-orn'; did you mean jetson-orin\? \(there are cpu, desk"):
        device_settings("jetson-orn")


# What programs and people get wrong, by the JSON that it is: the program and its schema refuse the same.
BAD: list[tuple[str, Any]] = [
    ("model", None), ("model", 5), ("model", {}), ("model.name", ""), ("model.name", 5),
    ("model.args", []), ("model.args", "x"), ("model.random", -1), ("model.random", "0"), ("model.random", 0.5),
    ("model.random", True), ("model.pretrained", True), ("model.pretrained", "yes"), ("model.checkpoint", 5),
    ("model.sha256", "xyz"), ("model.sha256", "A" * 64), ("model.colour", 1), ("model.preprocess", []),
    ("model.preprocess.mean", "0.5"), ("model.preprocess.mean", [None]), ("model.preprocess.crop_pct", 0),
    ("model.preprocess.crop_pct", 1.1), ("model.preprocess.interpolation", "cubic"), ("images", None), ("images", {}),
    ("images", []), ("images.path", 5), ("images.generator", "noise"), ("images.generator", "squares"),
    ("images.count", 0), ("images.count", 1.5), ("images.every", 0), ("images.offset", -1), ("images.seed", -1),
    ("images", {"generator": "noise", "count": None}), ("evaluate", {}), ("evaluate", {"count": 3}), ("prune", {}),
    ("prune", None), ("prune.mass", 0.5), ("prune.preset", "evit-0.7"), ("prune.remove", 5), ("prune.budget", "b"),
    ("prune.given", True), ("prune", {"mass": 0}), ("prune", {"mass": 1}), ("prune", {"mass": "0.5"}),
    ("prune", {"remove": 0}), ("prune", {"remove": -1}), ("prune", {"remove": []}), ("prune", {"remove": [0, 0]}),
    ("prune", {"remove": [3, -1]}), ("prune", {"remove": 2.5}), ("prune", {"remove": "5"}),
    ("prune", {"keep_rates": {"3": 0}}), ("prune", {"keep_rates": {"3": 1.5}}), ("prune", {"keep_rates": {"-1": 0.5}}),
    ("prune", {"keep_rates": {"x": 0.5}}), ("prune", {"keep_rates": [0.5]}), ("prune", {"target": {}}),
    ("prune", {"target": 5}), ("prune", {"preset": None}), ("prune", {"given": False}), ("prune.target.gflops", 0),
    ("prune.target.gflops", "1"), ("prune.target.speedup", 2.0), ("prune", {"target": {"latency_ms": 9}}),
    ("prune.target.table", "t"), ("prune", {"target": {"latency_ms": 0, "table": "t"}}),
    ("prune", {"target": {"speedup": 2, "correction_ms": 1}}), ("prune", {"target": {"speedup": 2, "table": 5}}),
    ("prune", {"target": {"flops_ratio": 0.5, "table": "t"}}), ("prune", {"target": {"kl": 0.1, "table": "t"}}),
    ("prune", {"target": {"kl": 0.1, "speedup": 2, "table": "t", "correction_ms": 1}}), ("prune.target.colour", 2.0),
    ("prune", {"target": {"flops_ratio": 0}}), ("prune", {"target": {"flops_ratio": 1.1}}),
    ("prune", {"target": {"speedup": 0.9}}), ("prune.method", 5), ("prune.blocks", []), ("prune.blocks", ["a"]),
    ("prune.stages", 0), ("prune.stages", 5), ("prune.similar", 1), ("prune.similar", -0.1), ("prune.inflection", 2),
    ("prune.iterations", 0), ("prune.iterations", 101), ("prune.quantile", 0), ("prune.search", 5),
    ("prune.search.trials", -1), ("prune.search.trials", 10001), ("prune.final", "yes"), ("prune.final", 1),
    ("slim", {}), ("slim", {"widths": "w", "target": {"flops_ratio": 0.5}}), ("slim", {"target": {"flops_ratio": 1}}),
    ("slim", {"target": {"gflops": 0}}), ("slim", {"target": {"gflops": 1, "flops_ratio": 0.5}}),
    ("slim", {"widths": "w", "heads": False, "neurons": False}), ("slim", {"widths": "w", "multiple": 12}),
    ("slim", {"widths": "w", "multiple": 0}), ("slim", {"widths": "w", "method": "magic"}),
    ("slim", {"widths": "w", "classes": []}), ("slim", {"widths": "w", "finetune": {"epochs": -1}}),
    ("slim", {"widths": "w", "masks": {"lr": 0}}), ("slim", {"widths": "w", "thresholds": {"epochs": 0}}),
    ("export.batch", 0), ("export.batch", 4097), ("export.batch", "8"), ("export.batch", None), ("export.top_k", 0),
    ("export.attention", "flash"), ("export.input", "uint16"), ("export.target", 5), ("precision.name", "fp64"),
    ("precision.images", 0), ("precision.headroom", 0.5), ("precision.percentile", 50), ("precision.percentile", 101),
    ("precision.float32", "x"), ("precision.float32", [5]), ("precision.agreement", 1.5), ("precision.cosine", -1),
    ("precision.calibrator", "x"), ("precision.tool", "x"), ("precision.half_io", 0), ("parity.atol", 0),
    ("parity.atol", "1e-4"), ("parity.tie", 1), ("parity.images", 0), ("parity.golden", 0), ("bench.runs", 4),
    ("bench.runs", 100001), ("bench.warmup", -1), ("bench.warmup", 601), ("bench.threads", 0), ("bench.rnus", 5),
    ("engine.mode", "maybe"), ("engine.workspace_mib", 15), ("bnech", {}), ("export", None), ("bench", 5),
]  # fmt: skip
GOOD_CHANGES: list[tuple[str, Any]] = [
    ("model.random", None), ("model.pretrained", False), ("model.args", {"num_classes": 7}), ("images.count", None),
    ("model", {"name": "a", "random": 0}), ("images", {"generator": "noise"}), ("evaluate", None), ("slim", None),
    ("evaluate", {"path": "p"}), ("prune", {"remove": [0, 3]}), ("prune", {"keep_rates": {"3": 0.7, "11": 1}}),
    ("prune", {"preset": "x", "given": False, "remove": None}), ("prune.blocks", [3, 6]), ("prune.stages", 4),
    ("prune", {"target": {"latency_ms": 9, "table": "t"}}), ("prune", {"target": {"speedup": 2, "table": "t"}}),
    ("prune", {"target": {"agreement": 0.9, "speedup": 2, "table": "t"}}),
    ("prune", {"target": {"speedup": 2, "table": "t", "correction_ms": -0.5, "latency_ms": None, "gflops": None}}),
    ("slim", {"widths": "w", "heads": False}), ("slim", {"target": {"gflops": 1}, "widths": None}),
    ("precision.float32", ["a*"]), ("export.batch", 4096), ("parity.atol", 1), ("prune.parameters", {"place": "x"}),
]  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good recipe as JSON has it, with one key changed."""
    data = json.loads(json.dumps(parse_yaml(GOOD, "r")))
    *sections_of, key = path.split(".")
    here = data
    for section in sections_of:
        here = here.setdefault(section, {})
    here[key] = value
    return data  # type: ignore[no-any-return]


def numbered(data: dict[str, Any]) -> dict[str, Any]:
    """Keys of `keep_rates` as YAML has them: JSON knows texts alone."""
    rates = (data.get("prune") or {}).get("keep_rates") if isinstance(data.get("prune"), dict) else None
    if isinstance(rates, dict):
        data["prune"]["keep_rates"] = {
            int(key) if key.lstrip("-").isdigit() else key: one for key, one in rates.items()
        }
    return data


@pytest.fixture(scope="module")
def schema() -> Any:
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize(("path", "value"), BAD)
def test_the_schema_refuses_what_the_program_refuses(schema: Any, path: str, value: Any) -> None:
    assert not schema.is_valid(changed(path, value))
    with pytest.raises(InputError):
        validate(numbered(changed(path, value)), "r")


@pytest.mark.parametrize(("path", "value"), GOOD_CHANGES)
def test_the_schema_takes_what_the_program_takes(schema: Any, path: str, value: Any) -> None:
    schema.validate(changed(path, value))
    validate(numbered(changed(path, value)), "r")


@pytest.mark.parametrize(("path", "old", "new"), PAIRS)
def test_the_schema_knows_that_ways_exclude_each_other(schema: Any, path: str, old: str, new: str) -> None:
    data = json.loads(json.dumps(with_way(path, old)))
    schema.validate(data)
    holder(data, path)[new] = json.loads(json.dumps(WAYS[path][new]))
    assert schema.is_valid(data) is stand_beside(path, old, new)


# Texts that look like recipes and are none: pieces of YAML in any order, and any text.
PIECES = st.sampled_from(
    [
        *(f"{key}: " for key in ("model", "name", "random", "prune", "remove", "keep_rates", "images", "<<", "?", "=")),
        *("!!bool ", "!!timestamp ", "!!int ", "!!set ", "!!binary ", "!!python/name:os.system ", "!", "&a ", "*a"),
        *("\n", "\n  ", "\n- ", "{", "}", "[", "]", ",", ": ", "#", "---\n", "...\n", "%YAML 1.1\n", "'", '"', "|\n"),
        *("1", "-1", "1e999", ".nan", ".inf", "010", "1:30", "2001-01-01", "9" * 5000, "²", "null", "~", "yes", "x"),
        *("\ufeff", "\x00", "\x1b[31m", "\u202e", '"\\ud800"', '"\\0"', "\t", "\r"),
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=60)
KNOWN = parse_yaml(GOOD, "r")
PATHS = st.sampled_from(
    [*(f"{path}.{key}" for path in WAYS for key in WAYS[path]), "prune", "prune.keep_rates.1", "bench.runs.x", "a.b"]
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(TEXTS)
def test_any_recipe_ends_in_a_recipe_or_one_line(text: str) -> None:
    ends_in_a_line(lambda: validate(parse_yaml(text, "r.yaml"), "r.yaml"))
    ends_in_a_line(lambda: recipe_from(parse_yaml(GOOD + text, "r.yaml")))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.tuples(PATHS | TEXTS, TEXTS | st.just("null")), max_size=3))
def test_any_settings_end_in_a_recipe_or_one_line(words: list[tuple[str, str]]) -> None:
    ends_in_a_line(lambda: recipe_from(override(KNOWN, [f"{path}={text}" for path, text in words])))
    ends_in_a_line(lambda: recipe_from(override(KNOWN, [(path, text) for path, text in words])))
