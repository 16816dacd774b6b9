"""Folders of graphs that share their weights: each tensor once, aligned, linked, and readable by anybody."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.graph import store as stores
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.store import ALIGNMENT, WeightStore
from vitrim.exporter.graph.weights import Weights, is_external, place_of

X = np.random.default_rng(0).standard_normal((1, 200)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 200, 200)).astype(np.float32)  # 160,000 bytes each


def chain(make_graph: Any, *weights: np.ndarray) -> onnx.ModelProto:
    """x times each weight in turn, plus a bias."""
    names = [f"w{index}" for index in range(len(weights))]
    steps = ["x", *(f"p{index}" for index in range(len(weights)))]
    nodes = [
        helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(steps, names, steps[1:], strict=False)
    ]
    nodes.append(helper.make_node("Add", [steps[-1], "bias"], ["y"]))
    held = dict(zip(names, weights, strict=True)) | {"bias": np.ones(200, np.float32)}
    return make_graph(nodes, {"x": X}, {"y": (np.float32, (1, 200))}, **held)


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.data"))


def run(path: Path) -> np.ndarray:
    """Plain onnxruntime on a path."""
    return np.asarray(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0])


def test_equal_tensors_are_stored_once_and_aligned(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path) as store:
        store.save(chain(make_graph, W[0], W[1], W[0].copy()), "a.onnx")
        store.save(chain(make_graph, W[1], W[2]), "b.onnx")
    (data,) = data_files(tmp_path)
    assert 3 * W[0].nbytes <= data.stat().st_size < 3 * W[0].nbytes + 2 * ALIGNMENT
    places = {}
    for name in ("a", "b"):
        model = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False)
        assert model.ByteSize() < 3000
        outside = {tensor.name: place_of(tensor) for tensor in model.graph.initializer if is_external(tensor)}
        places |= {f"{name}.{tensor}": place for tensor, place in outside.items()}
        assert "bias" not in outside
    assert set(places) == {"a.w0", "a.w1", "a.w2", "b.w0", "b.w1"}
    assert places["a.w0"] == places["a.w2"]
    assert places["a.w1"] == places["b.w0"]
    assert len(set(places.values())) == 3
    assert all(place.offset % ALIGNMENT == 0 and place.length == W[0].nbytes for place in places.values())


def test_a_shared_graph_is_linked_and_what_others_have_of_it_is_not_written_again(
    make_graph: Any, tmp_path: Path
) -> None:
    with WeightStore(tmp_path / "first") as store:
        store.save(chain(make_graph, W[0], W[1]), "a.onnx")
    model, weights = read_bare(tmp_path / "first" / "a.onnx")
    with WeightStore(tmp_path / "second") as store:
        store.share(model, "a.onnx", weights)
        store.save(chain(make_graph, W[1], W[2]), "b.onnx")
        store.save(model, "c.onnx")  # it names a file that the folder will have
    own, linked = sorted(data_files(tmp_path / "second"), key=lambda path: path.stat().st_nlink)
    assert linked.samefile(data_files(tmp_path / "first")[0])
    assert own.stat().st_size == W[2].nbytes
    for name, held in (("a", W[:2]), ("b", W[1:]), ("c", W[:2])):
        np.testing.assert_allclose(run(tmp_path / "second" / f"{name}.onnx"), X @ held[0] @ held[1] + 1, rtol=1e-3)


def test_a_folder_opens_in_plain_onnx_and_onnxruntime_wherever_it_is_moved(make_graph: Any, tmp_path: Path) -> None:
    model = chain(make_graph, W[0], W[1])
    with WeightStore(tmp_path / "here") as store:
        store.save(model, "m.onnx")
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]
    shutil.move(tmp_path / "here", tmp_path / "there")
    np.testing.assert_array_equal(run(tmp_path / "there" / "m.onnx"), expected)
    onnx.checker.check_model(tmp_path / "there" / "m.onnx", full_check=True)
    loaded = onnx.load(tmp_path / "there" / "m.onnx")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    np.testing.assert_array_equal(held["w1"], W[1])


@pytest.mark.parametrize("linked", [True, False])
def test_the_next_folder_links_what_it_takes_over(
    linked: bool, make_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WeightStore(tmp_path / "one") as store:
        store.save(chain(make_graph, W[0], W[1]), "m.onnx")
    (first,) = data_files(tmp_path / "one")
    model, weights = read_bare(tmp_path / "one" / "m.onnx")
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(W[2], "w1"))
    if not linked:

        def refuse(source: Path, target: Path) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    before = first.read_bytes()
    with WeightStore(tmp_path / "two") as store:
        store.save(model, "m.onnx", weights)
    taken = tmp_path / "two" / first.name
    (fresh,) = set(data_files(tmp_path / "two")) - {taken}
    assert taken.samefile(first) == linked
    assert taken.read_bytes() == first.read_bytes() == before
    assert fresh.stat().st_size == W[2].nbytes
    shutil.rmtree(tmp_path / "one")
    np.testing.assert_allclose(run(tmp_path / "two" / "m.onnx"), X @ W[0] @ W[2] + 1, rtol=1e-4, atol=1e-3)


def test_nothing_new_means_no_file_of_its_own(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path / "one") as store:
        store.save(chain(make_graph, W[0]), "m.onnx")
    with WeightStore(tmp_path / "two") as store:
        store.save(*_as_saved(tmp_path / "one" / "m.onnx"))
    assert [path.name for path in data_files(tmp_path / "two")] == [path.name for path in data_files(tmp_path / "one")]
    assert (tmp_path / "two" / "m.onnx").read_bytes() == (tmp_path / "one" / "m.onnx").read_bytes()


def _as_saved(path: Path) -> tuple[onnx.ModelProto, str, Weights]:
    model, weights = read_bare(path)
    return model, path.name, weights


def test_a_graph_s_bytes_tell_its_weights(make_graph: Any, tmp_path: Path) -> None:
    """A cache that is bound to a graph file is bound to its weights."""
    for name, weight in (("a", W[0]), ("b", W[1]), ("again", W[0])):
        with WeightStore(tmp_path / name) as store:
            store.save(chain(make_graph, weight), "m.onnx")
    first, other, again = ((tmp_path / name / "m.onnx").read_bytes() for name in ("a", "b", "again"))
    assert first != other
    assert first == again


def test_a_stranger_s_data_is_copied_and_its_small_tensors_taken_in(make_graph: Any, tmp_path: Path) -> None:
    source = tmp_path / "stranger"
    source.mkdir()
    model = chain(make_graph, W[0], W[1], W[0])
    onnx.save_model(model, source / "m.onnx", save_as_external_data=True, location="all.bin", size_threshold=0)
    with WeightStore(tmp_path / "ours") as store:
        store.save(*_as_saved(source / "m.onnx"))
    (data,) = data_files(tmp_path / "ours")
    assert data.stat().st_size < 2 * W[0].nbytes + ALIGNMENT  # equal ones once, which the stranger had twice
    kept = onnx.load(tmp_path / "ours" / "m.onnx", load_external_data=False)
    assert [tensor.name for tensor in kept.graph.initializer if not is_external(tensor)] == ["bias"]
    np.testing.assert_array_equal(run(tmp_path / "ours" / "m.onnx"), run(source / "m.onnx"))


def test_the_caller_s_model_stays_as_it_is(make_graph: Any, tmp_path: Path) -> None:
    model = chain(make_graph, W[0])
    before = model.SerializeToString(deterministic=True)
    with WeightStore(tmp_path) as store:
        store.save(model, "m.onnx")
    assert model.SerializeToString(deterministic=True) == before


def test_a_failure_leaves_nothing(make_graph: Any, tmp_path: Path) -> None:
    def fail() -> None:
        with WeightStore(tmp_path) as store:
            store.save(chain(make_graph, W[0]), "m.onnx")
            assert len(list(tmp_path.iterdir())) == 1  # what is being written
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_and_is_one_line(
    make_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WeightStore(tmp_path / "one") as store:
        store.save(chain(make_graph, W[0], W[1]), "m.onnx")
    model, weights = read_bare(tmp_path / "one" / "m.onnx")
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(W[2], "w1"))
    whole = stores.atomic_write

    def full(path: Path, data: bytes) -> None:
        if path.name == "b.onnx":
            raise OSError(errno.ENOSPC, "no space")
        whole(path, data)

    def write() -> None:
        with WeightStore(tmp_path / "two") as store:
            store.save(model, "a.onnx", weights)
            store.save(model, "b.onnx", weights)

    monkeypatch.setattr(stores, "atomic_write", full)
    with pytest.raises(EnvironmentLackError, match=r"^cannot write .*b.onnx: the disk is full"):
        write()
    assert list((tmp_path / "two").iterdir()) == []
    assert len(list((tmp_path / "one").iterdir())) == 2
    monkeypatch.undo()
    write()
    assert len(list((tmp_path / "two").iterdir())) == 4


def test_a_published_file_cannot_be_appended_to_by_accident(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path) as store:
        store.save(chain(make_graph, W[0]), "m.onnx")
    (data,) = data_files(tmp_path)
    assert data.stat().st_mode & 0o222 == 0


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EnvironmentLackError, match=r"cannot write .*file/inner: "),
        WeightStore(tmp_path / "file/inner"),
    ):
        pass


def test_weights_that_are_not_there_are_refused(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path / "one") as store:
        store.save(chain(make_graph, W[0]), "m.onnx")
    model, weights = read_bare(tmp_path / "one" / "m.onnx")
    data_files(tmp_path / "one")[0].unlink()
    with pytest.raises(InputError, match="which is missing"), WeightStore(tmp_path / "two") as store:
        store.save(model, "m.onnx", weights)
    assert list((tmp_path / "two").iterdir()) == []


def test_least_decides_what_goes_aside(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path, least=100) as store:
        store.save(chain(make_graph, W[0]), "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert all(map(is_external, model.graph.initializer))
    assert stores.PENDING.encode() not in (tmp_path / "m.onnx").read_bytes()
