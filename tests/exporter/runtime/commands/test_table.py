"""Tables that are made on a device: by onnxruntime, and by engines that a stand-in for TensorRT builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from latency_tables import made_table
from profile_folders import doubling_folder, made_profile

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.commands import table as tables
from vitrim.exporter.runtime.commands.table import build_all, make_table
from vitrim.exporter.runtime.tensorrt.plain_build import by_tensorrt


@pytest.mark.slow
def test_onnxruntime_times_the_graphs_of_a_folder(tmp_path: Path) -> None:
    folder, told = doubling_folder(tmp_path / "p"), list[Any]()
    before = sorted(path.name for path in folder.iterdir())
    table = make_table(folder, processes=1, rounds=3, progress=lambda *at: told.append(at))
    assert (table.packed, table.of.model, table.of.threads, table.counts) == (True, "small", 1, (1, 9))
    assert all(0 < took < 5 for took in (*table.mlp, *table.forms["decomposed"].attention))
    assert set(table.forms["decomposed"].stages) == {"frugal"}
    assert told == [(1, 1)]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_cannot_be_timed_is_said_before_any_graph_is_loaded(tmp_path: Path) -> None:
    folder = doubling_folder(tmp_path / "p")
    for given, said in (((0,), "threads is 0"), ((1, 0), "processes is 0"), ((1, 1, 0), "rounds is 0")):
        with pytest.raises(InputError, match=said):
            make_table(folder, *given)
    other = doubling_folder(tmp_path / "o", target="jetpack-6")
    with pytest.raises(EnvironmentLackError, match="TensorRT cannot be imported"):
        make_table(other)


def test_threads_are_the_folder_s_unless_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def table_of(*given: Any) -> Any:
        seen.append(given[2:5])
        return made_table()

    monkeypatch.setattr(tables, "table_of", table_of)
    folder = doubling_folder(tmp_path / "p", threads=3)
    make_table(folder)
    make_table(folder, 2, 4, 5)
    assert seen == [(3, 6, 10), (2, 4, 5)]


def test_every_graph_of_a_tensorrt_target_gets_an_engine(
    fake_trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trt.install("10.3.0")
    monkeypatch.setattr(tables, "runtime_missing", lambda family: None)
    built: list[Any] = []
    monkeypatch.setattr(tables, "build_engine", lambda *given, **named: built.append((given[:2], named["precision"])))
    graphs = {name: tmp_path / f"{name}.onnx" for name in made_profile().names}
    told: list[Any] = []
    build_all(graphs, tmp_path, get_target("jetpack-6"), "fp32", lambda *at: told.append(at), by_tensorrt)
    assert built == [((graph, tmp_path / f"{name}.engine"), "fp32") for name, graph in graphs.items()]
    assert told[-1] == (6, 6)
    monkeypatch.setattr(tables, "runtime_missing", lambda family: "there is no GPU")
    with pytest.raises(EnvironmentLackError, match="there is no GPU"):
        build_all(graphs, tmp_path, get_target("jetpack-6"), "fp32", lambda *at: None, by_tensorrt)
