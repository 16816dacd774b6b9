"""A table of a small model, measured: what is in it, and what a target makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears

from vitrim import api
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.latency import FormTimes, LatencyTable, StageCost, read_table
from vitrim.exporter.runtime.bench.profile import read_profile
from vitrim.exporter.runtime.commands.table import make_table
from vitrim.recipes.profile.run import as_recipe

SETTINGS = {"model.args.depth": 2, "export.attention": "decomposed", "prune.blocks": [0], "prune.final": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LatencyTable]:
    out = tmp_path_factory.mktemp("table") / "t.json"
    settings = SETTINGS | {
        "prune.method": "evit",
        "prune.target": {"speedup": 1.05, "table": str(out)},
    }  # the table that is made for it
    return out, api.profile(small_recipe(), out, threads=1, batch=2, processes=1, rounds=3, settings=settings)


@pytest.mark.slow
def test_a_table_says_what_was_timed_and_where(made: tuple[Path, LatencyTable]) -> None:
    out, table = made
    assert read_table(str(out)) == table
    of = table.of
    assert (of.model, of.tokens, of.batch, of.threads, of.target) == ("vit_tiny_patch16_224", 17, 2, 1, "ort-cpu")
    assert (table.counts, table.clock, table.processes) == ((1, 4, 7, 11, 14, 17), "processor", 1)
    (form,) = table.forms.values()
    assert set(form.stages) == {"evit"}
    assert 0 < min(form.attention) <= max(form.attention) < form.dense
    assert 0 < min(table.mlp) <= max(table.mlp) < form.dense


@pytest.mark.slow
def test_targets_are_solved_on_it(made: tuple[Path, LatencyTable], tmp_path: Path) -> None:
    out, table = made
    recipe = small_recipe(
        model={"args": small_recipe()["model"]["args"] | {"depth": 2}},
        prune={"method": "evit", "target": {"latency_ms": 0.97 * table.dense, "table": str(out)}, "final": False},
        export={"batch": 2},
        bench={"threads": 1},
    )
    # An exact cost of stages, as one process of three rounds may find any.
    (form,) = table.forms.items()
    free = replace(
        table,
        forms={form[0]: replace(form[1], stages={"evit": replace(form[1].stages["evit"], fixed=0.0, per_token=0.0)})},
    )
    free.write(out)
    ears = Ears()
    budget = api.calibrate(recipe, tmp_path / "b.json", settings={"prune.blocks": [0]}, listener=ears)
    told = budget.statistics["latency"]
    assert 0.8 * table.dense < told["predicted_ms"] <= 0.97 * table.dense
    assert told["dense_ms"] == pytest.approx(table.dense, abs=1e-6)
    assert str(out.parent) not in (tmp_path / "b.json").read_text()
    assert not any("formula" in note for note in ears.notes)
    with pytest.raises(InputError, match="is a table of batch 2, but here it is 1"):
        api.calibrate(recipe, tmp_path / "c.json", settings={"export.batch": 1})
    with pytest.raises(InputError, match=r"does not know tome \(it knows evit\)"):
        api.calibrate(recipe, tmp_path / "c.json", settings={"prune.method": "tome"})


def test_without_a_table_a_speed_up_is_said_to_be_a_formula_s(tmp_path: Path) -> None:
    ears = Ears()
    api.calibrate(small_recipe(prune={"target": {"speedup": 1.2}}), tmp_path / "b.json", listener=ears)
    assert any("goes by a formula" in note and "vitrim profile" in note for note in ears.notes)
    with pytest.raises(InputError, match=r"prune\.target: latency_ms needs table: FILE; make one by `vitrim profile"):
        api.calibrate(small_recipe(prune={"target": {"latency_ms": 9.0}}), tmp_path / "b.json")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"processes": 0}, "processes is 0; give a whole number from 1 to 256"),
        ({"rounds": 0}, "rounds is 0"),
        ({"target": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_profiled_is_told_before_any_work(tmp_path: Path, keywords: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        api.profile(small_recipe(), tmp_path / "t.json", **keywords)
    (tmp_path / "mine.json").write_text(json.dumps({"mine": 1}))
    with pytest.raises(InputError, match="exists and is no latency table"):
        api.profile(small_recipe(), tmp_path / "mine.json")


def test_a_model_s_name_stands_for_a_recipe() -> None:
    found = as_recipe("deit_tiny_patch16_224.fb_in1k")
    assert found["model"] == {"name": "deit_tiny_patch16_224", "random": 0}
    assert as_recipe("quickstart") == "quickstart"
    assert as_recipe("no_such_thing") == "no_such_thing"
    assert as_recipe(found) is found


def test_a_table_of_engines_takes_what_builds_them(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError, match=r"for another machine: vitrim profile RECIPE -o FOLDER --pack"):
        api.profile(small_recipe(), tmp_path / "t.json", target="jetpack-6")


@pytest.mark.slow
def test_a_folder_for_a_device_holds_the_graphs_and_the_plans_loads(tmp_path: Path) -> None:
    out, settings = tmp_path / "pack", SETTINGS | {"prune.method": "evit"}
    done = api.pack_profile(small_recipe(), out, threads=1, settings=settings)
    assert (done.folder, done.name, done.target, done.graphs) == (str(out), "pack", "ort-cpu", 14)
    found = read_profile(out)
    assert (found.counts, found.forms, found.threads, found.batch) == ((1, 4, 7, 11, 14, 17), ("decomposed",), 1, 1)
    assert found.dense.mlp == (17.0, 1.0)
    assert [load.before for load in found.plans["evit"]] == [(17,)]  # 0.55 is out of reach
    table = make_table(out, processes=1, rounds=2)
    assert table.packed
    assert all(0 < took < 50 for took in (*table.mlp, table.forms["decomposed"].dense))

    rising = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # two rounds may find anything
    form = FormTimes(2.0, rising, {"evit": StageCost(0.0, 0.0)})
    table = replace(table, mlp=rising, forms={"decomposed": form})
    table.write(tmp_path / "t.json")
    target = {"speedup": 1.05, "table": str(tmp_path / "t.json")}
    recipe = small_recipe(model={"args": small_recipe()["model"]["args"] | {"depth": 2}}, bench={"threads": 1})
    recipe["prune"] = {"method": "evit", "blocks": [0], "final": False, "target": target}
    assert api.calibrate(recipe, tmp_path / "b.json").statistics["latency"]["dense_ms"] == pytest.approx(table.dense)

    api.pack_profile(small_recipe(), out, threads=2, settings=settings)  # takes the place of the first
    assert read_profile(out).threads == 2
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is there and no folder of `vitrim profile --pack`"):
        api.pack_profile(small_recipe(), out, settings=settings)
    assert (out / "mine.txt").read_text() == "mine"
