"""Which files the commands write over, and that what they refuse is refused before any work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from helpers import budget_for, random_widths, small_recipe, small_vit

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import InputError, VitrimError
from vitrim.exporter.pruning.budget import write_budget
from vitrim.exporter.pruning.load import save_slimmed
from vitrim.exporter.pruning.slim import slim
from vitrim.exporter.pruning.widths import write_widths
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.recipes import new
from vitrim.recipes.pipeline import run
from vitrim.recipes.schema.own_files import BUDGET, SLIMMED, WIDTHS, check_file, inputs_of

PHOTO = b"\xff\xd8\xff\xe0 not vitrim's"
OUTPUTS = {"calibrate": "b.json", "slim": "w.safetensors", "new": "n.yaml", "bench": "t.json"}


class WorkError(Exception):
    """A command began to work."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe for each command, its checkpoint and its images, where no work can begin."""

    def work(*words: Any, **options: Any) -> Any:
        raise WorkError

    monkeypatch.setattr(run, "open_run", work)
    monkeypatch.setattr(new, "create_model", work)
    monkeypatch.setattr("vitrim.exporter.runtime.commands.bench.bench_bundle", work)
    monkeypatch.delenv("VITRIM_STAGES", raising=False)
    monkeypatch.chdir(tmp_path)
    sections = {"model": {"random": None, "checkpoint": "dense.safetensors"}}
    pruned = small_recipe(**sections, images={"generator": None, "path": "photos"})
    (tmp_path / "calibrate.yaml").write_text(yaml.safe_dump(pruned))
    slimmed = small_recipe(**sections, slim={"target": {"flops_ratio": 0.8}}) | {"prune": None}
    (tmp_path / "slim.yaml").write_text(yaml.safe_dump(slimmed))
    (tmp_path / "dense.safetensors").write_bytes(b"dense")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(PHOTO)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write_manifest(bundle, {}, [])
    return tmp_path


def words_of(command: str, out: object, *more: str) -> list[str]:
    first = {"new": "vit_tiny_patch16_224", "bench": "bundle"}.get(command, f"{command}.yaml")
    return [command, first, "-o", str(out), *more]


def call(*words: str) -> BaseException | None:
    return CliRunner().invoke(cli, list(words)).exception


def contents(folder: Path) -> dict[str, Any]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else os.lstat(path).st_mode
        for path in sorted(folder.rglob("*"))
    }


def refused(here: Path, said: str, *words: str) -> None:
    """A command ends in a line before it works, and everything is as it was."""
    before = contents(here)
    error = call(*words)
    assert isinstance(error, VitrimError), (words, error)
    assert error.exit_code == 3
    assert said in str(error), (words, str(error))
    assert "\n" not in str(error)
    assert contents(here) == before


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_new_place_lets_the_work_begin(here: Path, command: str) -> None:
    assert isinstance(call(*words_of(command, OUTPUTS[command])), WorkError)


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("text", [PHOTO, b"", b"{}", b"[1, 2]", b'{"blocks": []}', b"model: {}\n"])
def test_another_s_file_is_refused_and_force_overrules(here: Path, command: str, text: bytes) -> None:
    place = here / OUTPUTS[command]
    place.write_bytes(text)
    refused(here, "exists", *words_of(command, place))
    assert isinstance(call(*words_of(command, place, "--force")), WorkError)
    assert place.read_bytes() == text  # until there is something to put in its place


def fifo(place: Path) -> None:
    os.mkfifo(place)


MADE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "link": (lambda place: place.symlink_to("photos/a.jpg"), "is a link"),
    "dangling": (lambda place: place.symlink_to("nowhere"), "is a link"),
    "fifo": (fifo, "is a FIFO"),
    "folder": (lambda place: place.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("what", MADE)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_no_force_replaces_what_is_no_plain_file(here: Path, command: str, what: str, force: tuple[str, ...]) -> None:
    make, said = MADE[what]
    make(here / OUTPUTS[command])
    error = call(*words_of(command, OUTPUTS[command], *force))
    assert isinstance(error, VitrimError)
    assert said in str(error)
    assert os.path.lexists(here / OUTPUTS[command])
    assert not list(here.glob(".*"))


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_refused(here: Path, command: str, device: str) -> None:
    if command != "slim" and Path(device).exists():
        error = call(*words_of(command, device, "--force"))
        assert isinstance(error, VitrimError)
        assert "is a device" in str(error) or "permission denied" in str(error)


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("way", ["bundle", "bundle/deep", "link", "x/../bundle"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_nothing_is_written_into_a_bundle(here: Path, command: str, way: str, force: tuple[str, ...]) -> None:
    (here / "link").symlink_to("bundle")
    (here / "x").mkdir()
    refused(here, "lies in the bundle", *words_of(command, f"{way}/{OUTPUTS[command]}", *force))


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_a_run_reads_is_never_its_output(here: Path, force: tuple[str, ...]) -> None:
    recipe = here / "calibrate.yaml"
    refused(here, "is the recipe, which this run reads", *words_of("calibrate", "calibrate.yaml", *force))
    (here / "again").symlink_to(here)
    refused(here, "is the recipe, which this run reads", *words_of("calibrate", "again/calibrate.yaml", *force))
    os.link(recipe, here / "hard.json")
    refused(here, "is the recipe, which this run reads", *words_of("calibrate", "hard.json", *force))
    for command in ("calibrate", "slim"):
        refused(here, "is the recipe's model.checkpoint", *words_of(command, "dense.safetensors", *force))
    inside = "photos/a.jpg exists" if not force else "photos/a.jpg lies in the recipe's images.path"
    refused(here, inside, *words_of("calibrate", "photos/a.jpg", *force))
    refused(here, "is the checkpoint", *words_of("new", "d.yaml", "--checkpoint", "d.yaml", *force))


def test_a_budget_and_a_plan_that_a_recipe_reads_are_inputs_too(here: Path) -> None:
    """Edited by hand, they are a user's work."""
    model = small_vit()
    write_budget(budget_for(model, {1: 12}), here / "mine.json")
    write_widths(random_widths(model), here / "wide.json")
    given = ("--set", "prune.target=null", "--set", "prune.budget=mine.json")
    refused(here, "is the recipe's prune.budget", *words_of("calibrate", "mine.json", *given, "--force"))
    given = ("--set", "slim.target=null", "--set", "slim.widths=wide.json")
    refused(here, "is the recipe's slim.widths", *words_of("slim", "wide.safetensors", *given, "--force"))
    found = inputs_of(api.recipe("slim.yaml", ["slim.target=null", "slim.widths=wide.json"]))
    assert found == {
        "the recipe": here / "slim.yaml",
        "the recipe's model.checkpoint": here / "dense.safetensors",
        "the recipe's slim.widths": here / "wide.json",
    }
    assert "the recipe" not in inputs_of(api.recipe(small_recipe()))


def test_an_unrelated_json_beside_a_checkpoint_is_refused(here: Path) -> None:
    (here / "w.json").write_text(json.dumps({"a user's": "settings"}))
    refused(here, "w.json exists and is no plan of widths", *words_of("slim", "w.safetensors"))
    assert isinstance(call(*words_of("slim", "w.safetensors", "--force")), WorkError)
    (here / "w.json").unlink()
    (here / "w.json").symlink_to("photos/a.jpg")
    refused(here, "w.json is a link", *words_of("slim", "w.safetensors", "--force"))


def test_one_s_own_kind_of_file_is_replaced_and_that_is_said(here: Path) -> None:
    model, heard = small_vit(), list[str]()

    class Heard:
        def stage(self, name: str, cached: bool = False) -> None: ...
        def progress(self, done: int, total: int) -> None: ...
        def note(self, text: str) -> None:
            heard.append(text)

    widths = random_widths(model)
    write_budget(budget_for(model, {1: 12}), here / "b.json")
    save_slimmed(slim(model, widths), widths, here / "w.safetensors")
    write_widths(widths, here / "w.json")
    recipe = api.recipe("slim.yaml")
    check_file(Path("b.json"), BUDGET, recipe, False, Heard())
    check_file(Path("w.safetensors"), SLIMMED, recipe, False, Heard())
    check_file(Path("w.json"), WIDTHS, recipe, False, Heard())
    check_file(Path("new.json"), WIDTHS, recipe, False, Heard())
    assert heard == [
        "replaces the budget that was at b.json",
        "replaces the slimmed checkpoint that was at w.safetensors",
        "replaces the plan of widths that was at w.json",
    ]
    for path, kind in (("b.json", WIDTHS), ("w.json", BUDGET), ("w.json", SLIMMED)):
        with pytest.raises(InputError, match=f"{path} exists and is no {kind.label}"):
            check_file(Path(path), kind, recipe, False)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("bundle/inner", "lies in the bundle"),
        ("bundle/deep/inner", "lies in the bundle"),
        ("link/inner", "lies in the bundle"),
        ("photos", "is the recipe's images.path"),
        (".", "holds the recipe"),
        ("..", "holds the recipe"),
        ("/", "holds the recipe"),
        ("calibrate.yaml", "is the recipe"),
        ("dense.safetensors", "is the recipe's model.checkpoint"),
        ("link", "is a file or a link"),
    ],
)
def test_an_export_takes_no_place_that_is_somebody_s(here: Path, out: str, said: str) -> None:
    (here / "link").symlink_to("bundle")
    refused(here, said, "export", "calibrate.yaml", "-o", out)


def test_the_recipe_in_a_bundle_is_not_exported_over_itself(here: Path) -> None:
    (here / "calibrate.yaml").rename(here / "bundle" / "recipe.yaml")
    refused(here, "bundle holds the recipe", "export", "bundle/recipe.yaml", "-o", "bundle")
    assert isinstance(call("export", "bundle/recipe.yaml", "-o", "elsewhere"), WorkError | InputError)


def test_a_user_s_folder_in_the_place_of_a_cache_is_refused_and_kept(here: Path) -> None:
    (here / "home" / ".ssh").mkdir(parents=True)
    (here / "home" / ".ssh" / "key").write_text("key")
    for command, name in (("calibrate", "b.json"), ("slim", "w.safetensors")):
        for make in (lambda place: place.symlink_to("home"), lambda place: (place / "x").mkdir(parents=True)):
            cache = here / f".{name}.cache"
            make(cache)
            refused(here, f".{name}.cache", *words_of(command, name))
            cache.rename(here / f"used{len(list(here.iterdir()))}")
    (here / ".out.cache").symlink_to("home")
    refused(here, ".out.cache should be a cache folder", "export", "calibrate.yaml", "-o", "out")
    refused(here, ".out.cache should be a cache folder", "clean", "out")
