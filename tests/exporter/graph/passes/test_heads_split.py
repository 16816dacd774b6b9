"""Queries, keys and values as groups of heads: where the cut moves behind the heads' turn, and where it stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "qkv split by heads"
node = helper.make_node
QKV = np.random.default_rng(0).standard_normal((2, 5, 72)).astype(np.float32)  # images, tokens, 3 * 4 heads * 6


def attention(make_graph: Any, perm: tuple[int, ...] = (2, 0, 3, 1, 4), squeezed: int = 3) -> onnx.ModelProto:
    nodes = [
        node("Reshape", ["x", "apart"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=perm),
        node("Split", ["t", "ones"], ["s0", "s1", "s2"], axis=0),
    ]
    for n in range(3):
        reader = ("Squeeze", [f"s{n}", "zero"]) if n < squeezed else ("Neg", [f"s{n}"])
        nodes.append(node(*reader, [f"o{n}"]))
    part = tuple((2, 5, 3, 4, 6)[axis] for axis in perm[1:])
    outputs = {f"o{n}": (np.float32, part if n < squeezed else (1, *part)) for n in range(3)}
    weights = {"apart": np.array([2, 5, 3, 4, 6]), "ones": np.array([1, 1, 1]), "zero": np.array([0])}
    return make_graph(nodes, {"x": QKV}, outputs, **weights)


def test_the_cut_is_made_over_heads(make_graph: Any, rewritten: Any) -> None:
    result, counts = rewritten(attention(make_graph), {"x": QKV})
    assert counts[NAME] == 1
    assert operator_table(result) == {"Reshape": 1, "Transpose": 1, "Split": 1}
    turn = next(each for each in result.graph.node if each.op_type == "Transpose")
    assert next(a.ints for a in turn.attribute if a.name == "perm") == [0, 2, 1, 3]


@pytest.mark.parametrize("options", [{"perm": (2, 0, 1, 3, 4)}, {"squeezed": 2}], ids=str)
def test_another_layout_or_reader_keeps_it(options: Any, make_graph: Any, rewritten: Any) -> None:
    _, counts = rewritten(attention(make_graph, **options), {"x": QKV})
    assert NAME not in counts


def test_onnxruntime_keeps_it(make_graph: Any, rewritten: Any) -> None:
    _, counts = rewritten(attention(make_graph), {"x": QKV}, "ort-cpu")
    assert NAME not in counts
