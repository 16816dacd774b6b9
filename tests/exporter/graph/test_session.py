"""Graphs run as they are written or as fast as they go, with weights inside or beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import budget_for, small_vit
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.graph.files import read_bare
from vitrim.exporter.graph.session import Session
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.whole import deployable

X = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
node = helper.make_node


def test_inputs_by_name_or_the_first_alone(make_graph: Any) -> None:
    model = make_graph([node("Neg", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
    session = Session(model)
    assert (session.input, session.shape, session.outputs) == ("x", (1, 4), ["y"])
    np.testing.assert_array_equal(session(X)["y"], -X)
    np.testing.assert_array_equal(session({"x": X})["y"], -X)


def test_a_graph_or_inputs_that_do_not_fit_are_one_line(make_graph: Any) -> None:
    broken = make_graph([node("Det", ["x"], ["y"])], {"x": X}, {"y": (np.float32, (1,))})
    with pytest.raises(UnsupportedError, match=r"^onnxruntime \S+ cannot run the graph: .*"):
        Session(broken)(X)
    fine = make_graph([node("Neg", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
    with pytest.raises(UnsupportedError, match=r"cannot run the graph: .*Got invalid dimensions"):
        Session(fine)(X.T)


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [True, False])
def test_weights_beside_the_graph_change_no_bit(optimized: bool, tmp_path: Path) -> None:
    vit = small_vit(depth=2, embed_dim=192)
    model = trace(deployable(vit, budget_for(vit, {0: 12}), ("logits", "kept")), 1)
    with WeightStore(tmp_path) as store:
        store.save(model, "m.onnx")
    bare, weights = read_bare(tmp_path / "m.onnx")
    assert bare.ByteSize() < len(model.SerializeToString()) / 10
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    old = Session(model, optimized=optimized)(image)
    new = Session(bare, optimized=optimized, weights=weights)(image)
    for name, value in old.items():
        assert value.tobytes() == new[name].tobytes(), name
    with pytest.raises(UnsupportedError, match="cannot run the graph"):
        Session(bare, optimized=optimized)


def test_optimized_graphs_are_fused_and_others_not(make_graph: Any) -> None:
    """x * 0.1 * 10 is one product, and exactly x, once onnxruntime folds it."""
    nodes = [node("Mul", ["s", "t"], ["one"]), node("Mul", ["x", "s"], ["a"]), node("Mul", ["a", "t"], ["y"])]
    nodes.append(node("Mul", ["x", "one"], ["z"]))
    weights = {"s": np.float32(0.1), "t": np.float32(10)}
    outputs = {"y": (np.float32, X.shape), "z": (np.float32, X.shape)}
    model = make_graph(nodes, {"x": X}, outputs, **weights)
    found = Session(model, optimized=False)(X)
    np.testing.assert_array_equal(found["y"], X * np.float32(0.1) * np.float32(10))
    np.testing.assert_array_equal(found["z"], X * (np.float32(0.1) * np.float32(10)))
