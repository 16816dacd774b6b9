"""The Python API: settings, caches that are cleaned, and what is refused before anything heavy begins."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import TARGETS
from vitrim.recipes.pipeline.cache import MARKER, StageCache
from vitrim.recipes.stages.stage import Stage


def test_settings_are_values_by_key_or_texts() -> None:
    for settings in (
        {"export.batch": 2, "prune.target": {"gflops": 1.5}},
        ["export.batch=2", "prune.target.gflops=1.5"],
    ):
        recipe = api.recipe("quickstart", settings)
        assert recipe.prune.target is not None
        assert (recipe.export.batch, recipe.prune.target.gflops) == (2, 1.5)
    assert api.recipe("quickstart", "export.batch=3").export.batch == 3  # one text is one setting
    with pytest.raises(InputError, match=r"export\.batch"):
        api.recipe("quickstart", {"export.batch": "many"})


def test_values_by_key_are_taken_as_they_are(tmp_path: Path) -> None:
    """What no text carries unharmed: numbers as keys, paths, tuples, texts outside of the basic plane."""
    recipe = api.recipe("quickstart", {"prune.keep_rates": {3: 0.7}, "images.path": tmp_path / "\U0001f600 #1: x"})
    assert recipe.prune is not None
    assert recipe.prune.keep_rates == {3: 0.7}
    assert (recipe.prune.target, recipe.images.generator) == (None, None)
    assert recipe.images.path == str(tmp_path / "\U0001f600 #1: x")
    assert api.recipe("quickstart", {"prune.remove": (3, 4)}).prune.remove == [3, 4]  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"prune\.target\.gflops is nan"):
        api.recipe("quickstart", {"prune.target": {"gflops": float("nan")}})
    with pytest.raises(InputError, match="model.random: the number is too large"):
        api.recipe("quickstart", {"model.random": 10**30})


def test_keywords_change_a_recipe_too() -> None:
    recipe = api.recipe("quickstart", {"export.batch": 4, "bench.runs": 9})
    assert (recipe.export.batch, recipe.bench.runs) == (4, 9)


class Thing(Stage):
    """A stage that is only a name."""

    name = "thing"


def cached(folder: Path, output: str, size: int) -> Path:
    """The cache of an output, with one finished stage of so many bytes."""
    cache = StageCache(folder / f".{output}.cache")
    cache.make(Thing, "0123456789abcdef", lambda fresh: (fresh / "result").write_bytes(bytes(size)) and None)
    return cache.root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no cache shared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITRIM_STAGES", raising=False)
    return tmp_path


def test_cleaning_takes_the_named_output_s_cache_and_says_its_size(here: Path) -> None:
    one, other = cached(here, "out", 1000), cached(here, "b.json", 20)
    (here / "out").mkdir()
    (here / "out" / "model.onnx").write_text("whole")
    assert api.clean(["out/"]) == {str(one): 1000}
    assert not one.exists()
    assert other.exists()
    assert (here / "out" / "model.onnx").read_text() == "whole"
    assert api.clean(["out"]) == {}


@pytest.mark.parametrize("output", ["out/", Path("out"), b"out".decode()])
def test_one_output_needs_no_list(here: Path, output: Any) -> None:
    root = cached(here, "out", 7)
    assert api.clean(output) == {str(root): 7}
    assert not root.exists()


def test_the_bundle_that_one_stands_in_has_its_cache_beside_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = cached(here, "out", 7)
    (here / "out").mkdir()
    monkeypatch.chdir(here / "out")
    assert api.clean(".") == {str(root): 7}


def test_cleaning_without_a_name_takes_all_caches_here_and_the_shared_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "deeper").mkdir()
    one, deeper = cached(here, "out", 1000), cached(here / "deeper", "out", 3)
    shared = cached(here / "deeper", "shared", 50)
    (here / ".mine.cache").mkdir()
    (here / ".mine.cache" / "precious").write_text("mine")
    monkeypatch.setenv("VITRIM_STAGES", str(shared))
    assert api.clean() == {str(one): 1000, str(shared): 50}
    assert deeper.exists()
    assert (here / ".mine.cache" / "precious").read_text() == "mine"


def test_cleaning_refuses_a_folder_that_is_not_vitrim_s(here: Path) -> None:
    (here / ".out.cache").mkdir()
    (here / ".out.cache" / "precious").write_text("mine")
    with pytest.raises(InputError) as caught:
        api.clean(["out"])
    assert str(caught.value) == (
        f"{here / '.out.cache'} is no cache of vitrim's (it has no {MARKER}), so nothing is written to it; "
        "move it away, or choose another output"
    )
    assert (here / ".out.cache" / "precious").read_text() == "mine"


def test_the_command_cleans_alike(here: Path) -> None:
    root = cached(here, "out", 2_500_000)
    page = CliRunner().invoke(cli, ["clean", "out/"])
    assert (page.exit_code, page.stdout) == (0, f"removed {root}: 2.5 MB\n")
    root = cached(here, "out", 12)
    assert json.loads(CliRunner().invoke(cli, ["clean", "--json"]).stdout) == {str(root): 12}
    root = cached(here, "out", 12)
    assert CliRunner().invoke(cli, ["clean", "--quiet"]).output == ""
    assert not root.exists()
    assert CliRunner().invoke(cli, ["clean"]).stdout == "no cache of vitrim's is here\n"


def test_recipes_are_named_with_their_first_line() -> None:
    found = api.recipes()
    folder = Path(api.__file__).parent / "recipes"
    assert set(found) == {path.stem for kind in ("", "models/") for path in folder.glob(f"{kind}*.yaml")}
    assert set(api.devices()) == {path.stem for path in folder.glob("devices/*.yaml")}
    assert all(text and not text.startswith("#") for text in found.values())


def test_targets_are_those_that_there_are() -> None:
    assert [row["name"] for row in api.targets()] == list(TARGETS)
    assert json.loads(json.dumps(api.targets())) == api.targets()


def test_what_an_export_needs_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("timm", "onnx") else real(name))
    for call in (api.methods, lambda: api.models("deit"), lambda: api.new("x"), lambda: api.export("quickstart", "o")):
        with pytest.raises(EnvironmentLackError) as caught:
            call()
        assert str(caught.value) == (
            "timm, onnx not installed, which making a graph needs: pip install 'vitrim[export]'"
        )


def test_a_benchmark_is_not_written_into_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies in the bundle, which stays as it was published"):
        api.bench(tmp_path / "out", out=tmp_path / "out" / "b.json")
    assert os.listdir(tmp_path) == []
