"""Folders that tables are made of, and the table of graphs that are timed here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_tables import made_table
from profile_folders import HALVED, doubling_folder, made_profile

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.loads import without_stages
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench import profile as profiles
from vitrim.exporter.runtime.bench.profile import FILE, Profile, is_profile, read_profile, table_of
from vitrim.exporter.runtime.bench.turns import Samples
from vitrim.exporter.runtime.machine.named import is_of_here, machine_of

TOOK = {"attention.1": 1.0, "attention.9": 5.0, "mlp.1": 2.0, "mlp.9": 6.0, "dense": 12.0, "frugal.0": 9.9}


def test_a_table_has_what_every_graph_took(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Samples(12.0, {f"{name}.decomposed": np.array([took / 12, took / 12]) for name, took in TOOK.items()})
    asked: list[Any] = []

    def measured(*given: Any, **named: Any) -> Samples:
        asked.append((given[1], given[3:6], named["sizes"]))
        return samples

    monkeypatch.setattr(profiles, "measure", measured)
    profile = made_profile()
    table = table_of(profile, {}, 1, 2, 3, packed=True)
    assert asked == [("dense.decomposed", (1, 2, 3), profile.graphs)]
    form = table.forms["decomposed"]
    assert (*form.attention, *table.mlp, form.dense) == pytest.approx((1, 5, 2, 6, 12))
    assert (table.packed, table.clock, table.processes, table.rounds) == (True, "processor", 2, 3)
    assert (table.of.model, table.of.tokens, table.of.batch, table.of.threads) == ("small", 9, 2, 1)
    # Of two blocks one attention half has 5 tokens and not 9, and both MLPs: 1 ms and 2 ms less; the stage is the rest.
    plain = without_stages(table, form, HALVED, profile.dense)
    assert plain == pytest.approx(12 - 1 - 2)
    assert form.stages["frugal"].of(9) == pytest.approx(0.9)
    assert is_of_here(table)
    assert not is_of_here(made_table())


def test_a_folder_is_verified_before_anything_in_it_is_used(tmp_path: Path) -> None:
    folder = doubling_folder(tmp_path / "p")
    found = read_profile(folder)
    assert replace(found, files={}) == made_profile()
    assert set(found.files) == {"run_on_device.py", *(f"{name}.onnx" for name in found.names)}
    assert is_profile(folder)
    (folder / "json.py").write_text("raise SystemExit('run')")
    assert not is_profile(folder)
    with pytest.raises(InputError, match=r"p: json.py is not in profile.json; remove it"):
        read_profile(folder)
    (folder / "json.py").unlink()
    (folder / "mlp.9.decomposed.onnx").write_bytes(b"other")
    with pytest.raises(
        InputError, match=r"mlp.9.decomposed.onnx is not the file that was published .* copy the folder"
    ):
        read_profile(folder)
    with pytest.raises(InputError, match=r"has no profile.json.* vitrim profile RECIPE -o FOLDER --pack"):
        read_profile(tmp_path)
    assert not is_profile(tmp_path)


def test_a_profile_names_all_its_graphs_and_none_elsewhere(tmp_path: Path) -> None:
    data = made_profile().to_json()
    for change, said in (
        ({"counts": [1, 5, 9]}, r"has no graph attention\.5\.decomposed"),
        ({"graphs": {**data["graphs"], "../up": 1}}, "has a graph in another folder"),
        ({"more": 1}, "more is unknown"),
    ):
        with pytest.raises(InputError, match=said):
            Profile.from_json({**data, **change}, FILE)
    folder = doubling_folder(tmp_path / "p")
    (folder / "dense.decomposed.onnx").unlink()
    profiles.list_files(folder, made_profile())
    with pytest.raises(InputError, match=r"has no dense\.decomposed\.onnx; make it anew"):
        read_profile(folder)


def test_a_machine_has_the_name_of_what_runs_a_target() -> None:
    cpu = machine_of(get_target("ort-cpu"))
    assert cpu["runtime"].startswith("onnxruntime 1.")
    assert machine_of(get_target("openvino"))["device"] == cpu["device"]
