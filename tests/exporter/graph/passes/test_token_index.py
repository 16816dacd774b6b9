"""What can be proved about an index: one position a token, never negative, no repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import helper

from vitrim.exporter.graph.passes.base import Builder
from vitrim.exporter.graph.passes.token_index import of_constant, paired_index, token_index
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.surgery import import_graph

node = helper.make_node
X = np.random.default_rng(0).random((2, 6), np.float32)


@pytest.fixture
def graph_of(make_graph: Any) -> Any:
    """(nodes that make `i` from `x` [2, 6] or `j` [2, 3], shape of i, weights) -> the graph."""

    def make(nodes: list[Any], shape: tuple[int, ...], dtype: Any = np.int64, **weights: Any) -> gs.Graph:
        feeds = {"x": X, "j": np.zeros((2, 3), np.int64)}
        held = {name: np.array(value) for name, value in weights.items()}
        return import_graph(with_shapes(make_graph(nodes, feeds, {"i": (dtype, shape)}, **held)))

    return make


def test_an_index_that_is_expanded_over_the_width(graph_of: Any) -> None:
    nodes = [node("Unsqueeze", ["j", "last"], ["u"]), node("Expand", ["u", "size"], ["i"])]
    index = token_index(graph_of(nodes, (2, 3, 5), last=[2], size=[2, 3, 5]).outputs[0], 1)
    assert index is not None
    assert (index.source.name, index.shared, index.lead, index.count, index.images) == ("j", False, 2, 3, 2)
    assert not index.non_negative()  # an input may be anything
    assert not index.distinct(6)


def test_one_index_for_all_images_is_shared(graph_of: Any) -> None:
    nodes = [node("ReduceMax", ["j", "first"], ["u"]), node("Unsqueeze", ["u", "last"], ["v"])]
    nodes.append(node("Expand", ["v", "size"], ["i"]))
    index = token_index(graph_of(nodes, (2, 3, 5), first=[0], last=[2], size=[2, 3, 5]).outputs[0], 1)
    assert index is not None
    assert (index.shared, index.images) == (True, 1)


def test_an_index_that_differs_along_the_width_is_none(graph_of: Any) -> None:
    nodes = [node("Unsqueeze", ["j", "middle"], ["u"]), node("Expand", ["u", "size"], ["i"])]
    graph = graph_of(nodes, (2, 4, 3), middle=[1], size=[2, 4, 3])
    assert token_index(graph.outputs[0], 1) is None
    assert token_index(graph.outputs[0], 3) is None  # no such axis


@pytest.mark.parametrize(
    ("rows", "shared", "distinct", "negative"),
    [
        ([[0, 2], [0, 2]], True, True, False),
        ([[0, 2], [1, 2]], False, True, False),
        ([[0, 0], [1, 2]], False, False, False),
        ([[3, -1], [1, 2]], False, False, True),  # 3 and -1 are one of four tokens
    ],
)
def test_positions_that_are_known(rows: Any, shared: bool, distinct: bool, negative: bool) -> None:
    index = of_constant(np.array(rows), 2, 2)
    assert (index.shared, index.distinct(4), index.non_negative()) == (shared, distinct, not negative)
    assert index.dtype == np.int64


def test_topk_s_indices_are_never_negative_and_distinct(graph_of: Any) -> None:
    nodes = [node("TopK", ["x", "k"], ["v", "t"]), node("Unsqueeze", ["t", "last"], ["i"])]
    index = token_index(graph_of(nodes, (2, 3, 1), k=[3], last=[2]).outputs[0], 1)
    assert index is not None
    assert index.non_negative()
    assert index.distinct(6)


@pytest.mark.parametrize(
    ("op", "constant", "non_negative", "distinct"),
    [
        ("Add", 1, True, True),
        ("Add", -1, False, True),
        ("Sub", 1, False, True),
        ("Mod", 3, True, False),
        ("Max", 2, True, False),
    ],
)
def test_what_arithmetic_leaves_of_it(
    op: str, constant: int, non_negative: bool, distinct: bool, graph_of: Any
) -> None:
    nodes = [node("TopK", ["x", "k"], ["v", "t"]), node(op, ["t", "c"], ["m"]), node("Unsqueeze", ["m", "last"], ["i"])]
    index = token_index(graph_of(nodes, (2, 3, 1), k=[3], last=[2], c=constant).outputs[0], 1)
    assert index is not None
    assert (index.non_negative(), index.distinct(6)) == (non_negative, distinct)


def test_pairs_of_an_image_and_a_token(graph_of: Any) -> None:
    nodes = [node("Unsqueeze", ["j", "last"], ["u"]), node("Concat", ["images", "u"], ["i"], axis=2)]
    own, other = (np.broadcast_to(np.array(rows).reshape(2, 1, 1), (2, 3, 1)).copy() for rows in ([0, 1], [1, 0]))
    index = paired_index(graph_of(nodes, (2, 3, 2), last=[2], images=own).outputs[0], 2)
    assert index is not None
    assert (index.source.name, index.count) == ("j", 3)
    assert paired_index(graph_of(nodes, (2, 3, 2), last=[2], images=other).outputs[0], 2) is None
    assert paired_index(graph_of(nodes, (2, 3, 2), last=[2], images=own).outputs[0], 3) is None


def test_positions_become_a_tensor_of_a_shape(graph_of: Any) -> None:
    graph = graph_of([node("Neg", ["j"], ["i"])], (2, 3))
    index = token_index(graph.tensors()["j"], 1)
    assert index is not None
    build = Builder(graph, "p")
    assert index.tensor(build, [2, 3]) is graph.tensors()["j"]
    assert index.tensor(build, [2, 3, 1]).inputs[0].op == "Reshape"
    assert of_constant(np.array([[4, 2]]), 1, 2).tensor(build, [2]).values.tolist() == [4, 2]
