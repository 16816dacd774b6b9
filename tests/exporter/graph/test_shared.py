"""Graphs of one folder with their common weights in one file: each once, and what one graph alone has in itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.shared import save_shared
from vitrim.exporter.graph.store import ALIGNMENT, WeightStore
from vitrim.exporter.graph.weights import Weights, is_external

X = np.random.default_rng(0).standard_normal((1, 200)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 200, 200)).astype(np.float32)  # 160,000 bytes each


def chain(make_graph: Any, bias: float, *weights: np.ndarray) -> onnx.ModelProto:
    """x times each weight in turn, plus a bias of 800 bytes."""
    names = [f"w{index}" for index in range(len(weights))]
    steps = ["x", *(f"p{index}" for index in range(len(weights)))]
    nodes = [
        helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(steps, names, steps[1:], strict=False)
    ]
    nodes.append(helper.make_node("Add", [steps[-1], "bias"], ["y"]))
    held = dict(zip(names, weights, strict=True)) | {"bias": np.full(200, bias, np.float32)}
    graph: onnx.ModelProto = make_graph(nodes, {"x": X}, {"y": (np.float32, (1, 200))}, **held)
    return graph


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def outside(path: Path) -> set[str]:
    bare, _ = read_bare(path)
    return {tensor.name for tensor in bare.graph.initializer if is_external(tensor)}


def test_what_several_graphs_have_lies_once_and_the_rest_in_its_graph(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path / "one") as store:
        store.save(chain(make_graph, 1, W[0], W[1]), "a.onnx")
    with WeightStore(tmp_path / "other") as store:  # another file, at other places
        store.save(chain(make_graph, 2, W[2], W[1], W[0]), "b.onnx")
    graphs = {"a.onnx": read_bare(tmp_path / "one" / "a.onnx"), "b.1x1.onnx": read_bare(tmp_path / "other" / "b.onnx")}
    inside = chain(make_graph, 3, W[3], W[1])
    graphs["c.onnx"] = (inside, Weights(tmp_path))
    before = inside.SerializeToString()
    save_shared(graphs, tmp_path / "out")
    assert inside.SerializeToString() == before
    (data,) = (tmp_path / "out").glob("*.data")
    assert 2 * W[0].nbytes <= data.stat().st_size < 2 * W[0].nbytes + ALIGNMENT
    assert outside(tmp_path / "out" / "a.onnx") == {"w0", "w1"}
    assert outside(tmp_path / "out" / "b.1x1.onnx") == {"w1", "w2"}
    assert outside(tmp_path / "out" / "c.onnx") == {"w1"}
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.onnx")}
    assert sizes["a.onnx"] < 3000
    assert W[2].nbytes < sizes["b.1x1.onnx"] < W[2].nbytes + 3000
    for name, bias, weights in (("a.onnx", 1, (0, 1)), ("b.1x1.onnx", 2, (2, 1, 0)), ("c.onnx", 3, (3, 1))):
        wanted = X
        for index in weights:
            wanted = wanted @ W[index]
        np.testing.assert_allclose(answer(tmp_path / "out" / name), wanted + bias, rtol=1e-3, atol=1e-2)


def test_equal_graphs_give_equal_files(make_graph: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        graphs = {
            key: (chain(make_graph, bias, W[0]), Weights(tmp_path)) for key, bias in (("a.onnx", 1), ("b.onnx", 2))
        }
        save_shared(graphs, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 3
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes() for name in files)


def test_a_graph_that_no_file_could_hold_has_its_own_weights_beside_it_too(make_graph: Any, tmp_path: Path) -> None:
    graphs = {"a.onnx": (chain(make_graph, 1, W[0], W[1]), Weights(tmp_path))}
    save_shared(graphs, tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.onnx"]
    save_shared(graphs, tmp_path / "out", limit=2 * W[0].nbytes)
    assert outside(tmp_path / "out" / "a.onnx") == {"w0", "w1"}
    np.testing.assert_array_equal(answer(tmp_path / "in" / "a.onnx"), answer(tmp_path / "out" / "a.onnx"))


def test_weights_that_are_not_there_are_refused_and_nothing_is_left(make_graph: Any, tmp_path: Path) -> None:
    with WeightStore(tmp_path / "in") as store:
        store.save(chain(make_graph, 1, W[0]), "a.onnx")
    graph = read_bare(tmp_path / "in" / "a.onnx")
    next((tmp_path / "in").glob("*.data")).unlink()
    with pytest.raises(InputError, match="is missing; put the whole file beside it"):
        save_shared({"a.onnx": graph, "b.onnx": graph}, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
