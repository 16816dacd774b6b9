"""Whole files written from weights beside their graph, past 2 GB, and metadata that is added behind the rest."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.files import read_bare, read_whole, save, save_beside
from vitrim.exporter.graph.store import ALIGNMENT, WeightStore
from vitrim.exporter.graph.weights import is_external, place_of
from vitrim.exporter.runtime.caches import graph_hash

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal((1, 300)).astype(np.float32)
W = DRAW.standard_normal((300, 300)).astype(np.float32)
V = DRAW.standard_normal((300, 400)).astype(np.float16)


@pytest.fixture
def model(make_graph: Any) -> onnx.ModelProto:
    """Two large weights of two types, and small ones before, between and behind them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "v"], ["r"]),
        helper.make_node("Slice", ["r", "from", "to", "axis"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    small = {"from": np.array([0]), "to": np.array([9]), "axis": np.array([1]), "b": np.ones(300, np.float32)}
    weights = {"from": small["from"], "w": W, "b": small["b"], "v": V, "to": small["to"], "axis": small["axis"]}
    made = make_graph(nodes, {"x": X}, {"y": (np.float32, (1, 9))}, **weights)
    made.metadata_props.add(key="vitrim.kind", value="pruned")
    made.producer_name, made.doc_string = "somebody", "é" * 200
    made.graph.value_info.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, [1, 300]))
    return made


def aside(model: onnx.ModelProto, folder: Path) -> Path:
    with WeightStore(folder) as store:
        store.save(model, "m.onnx")
    return folder / "m.onnx"


def run(model: bytes | Path) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0])


def test_a_streamed_file_is_the_one_that_protobuf_writes(model: onnx.ModelProto, tmp_path: Path) -> None:
    bare, weights = read_bare(aside(model, tmp_path / "in"))
    assert sum(map(is_external, bare.graph.initializer)) == 2
    save(bare, tmp_path / "out.onnx", weights)
    assert (tmp_path / "out.onnx").read_bytes() == model.SerializeToString()
    assert [path.name for path in tmp_path.glob("out*")] == ["out.onnx"]
    save(model, tmp_path / "inside.onnx")
    assert (tmp_path / "inside.onnx").read_bytes() == model.SerializeToString()


@settings(max_examples=40, deadline=None)
@given(
    tensors=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("bcdfhiq"), st.booleans()), max_size=6),
    text=st.text(max_size=300),
    noted=st.booleans(),
)
def test_any_model_is_written_as_protobuf_does(
    tensors: list[tuple[int, str, bool]], text: str, noted: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    types = dict(
        zip("bcdfhiq", (np.int8, np.bool_, np.float64, np.float32, np.float16, np.int32, np.int64), strict=True)
    )
    held = []
    for index, (rank, kind, raw) in enumerate(tensors):
        array = DRAW.integers(0, 2, [60] * rank).astype(types[kind])
        if raw:
            held.append(numpy_helper.from_array(array, f"{text[:5]}{index}"))
        else:
            data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            held.append(helper.make_tensor(f"t{index}", data_type, array.shape, array.reshape(-1)))
        if noted:
            held[-1].doc_string = text
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], text or "g", [], [], held, doc_string=text)
    model = helper.make_model(graph, producer_name=text)
    folder = tmp_path_factory.mktemp("any")
    save(model, folder / "plain.onnx")
    assert (folder / "plain.onnx").read_bytes() == model.SerializeToString()
    with WeightStore(folder / "aside", least=1000) as store:
        store.save(model, "m.onnx")
    save(*read_bare(folder / "aside" / "m.onnx")[:1], folder / "n.onnx", read_bare(folder / "aside" / "m.onnx")[1])
    old, new = model, onnx.load(folder / "n.onnx")
    for before, after in zip(old.graph.initializer, new.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))
        assert before.name == after.name
    for each in (old, new):
        del each.graph.initializer[:]
    assert old == new


@pytest.mark.parametrize("limit", [None, 1])
def test_two_graphs_share_one_s_weights(model: onnx.ModelProto, limit: int | None, tmp_path: Path) -> None:
    bare, weights = read_bare(aside(model, tmp_path / "in"))
    places = save(bare, tmp_path / "own.onnx", weights, **({} if limit is None else {"limit": limit}))
    assert {place.file for place in places.values()} == {"own.onnx" if limit is None else "own.onnx.data"}
    save_beside(bare, tmp_path / "other.onnx", places, weights)
    assert (tmp_path / "other.onnx").stat().st_size < 4000
    np.testing.assert_array_equal(run(tmp_path / "other.onnx"), run(tmp_path / "own.onnx"))
    for before, after in zip(
        model.graph.initializer, read_whole(tmp_path / "other.onnx").graph.initializer, strict=True
    ):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))
    save_beside(bare, tmp_path / "partly.onnx", {"w": places["w"]}, weights)
    partly, _ = read_bare(tmp_path / "partly.onnx")
    assert [tensor.name for tensor in partly.graph.initializer if is_external(tensor)] == ["w"]
    np.testing.assert_array_equal(run(tmp_path / "partly.onnx"), run(tmp_path / "own.onnx"))


def test_a_graph_beside_weights_is_bound_to_them(model: onnx.ModelProto, tmp_path: Path) -> None:
    hashes = []
    for factor in (1, 2):
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(factor * W, "w"))
        save_beside(model, tmp_path / "other.onnx", save(model, tmp_path / "own.onnx"))
        hashes.append((graph_hash(tmp_path / "other.onnx"), (tmp_path / "other.onnx").stat().st_size))
    assert hashes[0][0] != hashes[1][0]
    assert hashes[0][1] == hashes[1][1]


def test_past_the_limit_weights_go_to_a_file_beside_it(model: onnx.ModelProto, tmp_path: Path) -> None:
    bare, weights = read_bare(aside(model, tmp_path / "in"))
    save(model, tmp_path / "limit.onnx", limit=len(model.SerializeToString()) + 1)
    assert not (tmp_path / "limit.onnx.data").exists()
    for name, given_model, given_weights in (("bare", bare, weights), ("whole", model, None)):
        path = tmp_path / f"{name}.onnx"
        save(given_model, path, given_weights, limit=len(model.SerializeToString()))
        assert path.stat().st_size < 5000
        written = onnx.load(path, load_external_data=False)
        places = {t.name: place_of(t) for t in written.graph.initializer if is_external(t)}
        assert {place.file for place in places.values()} == {f"{name}.onnx.data"}
        assert all(place.offset % ALIGNMENT == 0 for place in places.values())
        assert set(places) == {"w", "v"}
        onnx.checker.check_model(path)
        np.testing.assert_array_equal(run(path), run(model.SerializeToString()))
        assert read_whole(path).SerializeToString() == model.SerializeToString()


def test_weights_are_copied_in_pieces(make_graph: Any, tmp_path: Path) -> None:
    rows = 24 * 2**20 // 1200
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    wide = DRAW.standard_normal((300, rows)).astype(np.float32)  # 24 MB
    model = make_graph(nodes, {"x": X}, {"y": (np.float32, (1, rows))}, w=wide)
    bare, weights = read_bare(aside(model, tmp_path / "in"))
    tracemalloc.start()
    save(bare, tmp_path / "out.onnx", weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out.onnx").stat().st_size > wide.nbytes
    assert peak < 4 * 2**20


def test_reading_whole_gives_the_model_back(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert read_whole(aside(model, tmp_path)).SerializeToString() == model.SerializeToString()


def test_weights_beside_nobody_knows_where_are_one_line(model: onnx.ModelProto, tmp_path: Path) -> None:
    bare, _ = read_bare(aside(model, tmp_path / "in"))
    with pytest.raises(InputError, match=r"^the weight w is in a file beside the graph; say where that is$"):
        save(bare, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_external_tensors_inside_of_nodes_are_taken_in(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(W, "c"))
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [300, 300])
    model = helper.make_model(helper.make_graph([constant], "g", [], [value]), ir_version=10)
    options = {"save_as_external_data": True, "location": "c.data", "convert_attribute": True}
    onnx.save_model(model, tmp_path / "m.onnx", **options)
    assert (tmp_path / "m.onnx").stat().st_size < 1000
    bare, _ = read_bare(tmp_path / "m.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(bare.graph.node[0].attribute[0].t), W)
