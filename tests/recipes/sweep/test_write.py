"""What a sweep's folder may be, and the files in it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from report_bundles import make
from sweeps import ROWS, sweep

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.sweep.points import Point, recipe_for
from vitrim.recipes.sweep.result import Sweep
from vitrim.recipes.sweep.write import check_folder, relative_path, table, write_files


def test_a_folder_that_is_no_sweep_is_refused_and_stays(tmp_path: Path) -> None:
    recipe = recipe_from(small_recipe())
    check_folder(tmp_path / "new", recipe)
    (tmp_path / "mine").mkdir()
    check_folder(tmp_path / "mine", recipe)  # empty
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"mine exists and is no sweep \(it holds thesis.txt\); name another folder"):
        check_folder(tmp_path / "mine", recipe)
    with pytest.raises(InputError, match="is a file or a link"):
        check_folder(tmp_path / "mine" / "thesis.txt", recipe)
    make(tmp_path / "bundle")
    with pytest.raises(InputError, match="bundle exists and is no sweep"):
        check_folder(tmp_path / "bundle", recipe)
    with pytest.raises(InputError, match="lies in the bundle"):
        check_folder(tmp_path / "bundle" / "sweep", recipe)
    (tmp_path / "mine" / "sweep.journal").write_text("")
    check_folder(tmp_path / "mine", recipe)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photos is the recipe's images.path"):
        check_folder(tmp_path / "photos", recipe_from({**small_recipe(), "images": {"path": str(tmp_path / "photos")}}))


def test_recipes_of_the_chosen_points_can_be_read_with_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "data" / "photos"
    photos.mkdir(parents=True)
    data: dict[str, Any] = {**small_recipe(), "images": {"path": str(photos), "count": 8}}
    base = recipe_from(data)
    recipes = {one.name: recipe_for(base, Point(one.method, one.ratio, one.precision)) for one in ROWS}
    done = write_files(tmp_path / "s", sweep(), recipes)
    assert [one.recipe for one in done.chosen] == ["recipes/agreement-0.95.yaml", None, "recipes/speedup-1.4.yaml"]
    assert Sweep.read(tmp_path / "s" / "sweep.json", "sweep") == done
    file = tmp_path / "s" / "recipes" / "agreement-0.95.yaml"
    assert "path: ../../data/photos" in file.read_text()
    assert file.read_text().startswith(
        "# the fastest that agrees with dense on 95 % of the images: frugal at 0.7 in fp32\n"
        "# measured by vitrim sweep: agreement 98.8 % (96.5 to 99.6) of 250 images, 1.30 times as fast as dense"
    )
    monkeypatch.chdir(tmp_path.parent)
    read = api.recipe(file)
    wanted = recipes["frugal at 0.7 in fp32"]
    assert read.images.path is not None
    assert Path(read.images.path).resolve() == photos.resolve()
    assert read.model_dump(exclude={"images"}) == wanted.model_dump(exclude={"images"})
    assert (tmp_path / "s" / "pareto.svg").read_text().startswith("<svg xmlns")


def test_what_was_in_memory_has_no_recipe(tmp_path: Path) -> None:
    done = write_files(tmp_path / "s", sweep(), {})
    assert [one.recipe for one in done.chosen] == [None] * 3
    assert not (tmp_path / "s" / "recipes").exists()


def test_a_path_is_named_from_the_recipe_s_folder(tmp_path: Path) -> None:
    assert relative_path(str(tmp_path / "a" / "b.npz"), tmp_path / "c" / "d") == "../../a/b.npz"
    assert relative_path("hf-hub:timm/x@main", tmp_path) == "hf-hub:timm/x@main"
    shipped = Path(api.__file__).parent / "recipes" / "quickstart" / "weights.safetensors"
    assert relative_path(str(shipped), tmp_path) == "shipped:quickstart/weights.safetensors"


def test_the_table_has_a_line_for_every_point() -> None:
    rows = list(csv.DictReader(io.StringIO(table(sweep()))))
    assert [row["method"] for row in rows] == [one.method for one in ROWS]
    first, stopped, refused = rows[1], rows[5], rows[6]
    assert (first["agreement"], first["speedup"], first["front"], first["images"]) == ("0.988", "1.3", "1", "250")
    assert (stopped["images"], stopped["speedup"], stopped["stopped"]) == ("64", "", "dominated: <b>frugal</b>")
    assert (refused["agreement"], refused["front"], refused["refused"]) == ("", "0", "out of reach")
