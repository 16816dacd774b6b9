"""Queries, keys and values cut out by one Split, where the slices are all there is of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "qkv split once"
node = helper.make_node
X = np.random.default_rng(0).standard_normal((2, 5, 3, 4, 6)).astype(np.float32)  # images, tokens, 3, heads, width
SHAPE = (3, 2, 4, 5, 6)


def cut(make_graph: Any, rows: list[int], steps: int = 1, width: int = 1) -> onnx.ModelProto:
    """The transposed tensor, and a slice for each row; outputs are their sum."""
    nodes = [node("Transpose", ["x"], ["t"], perm=[2, 0, 3, 1, 4])]
    weights = {"axis": np.array([0]), "step": np.array([steps])}
    for index, row in enumerate(rows):
        weights |= {f"from{index}": np.array([row]), f"to{index}": np.array([row + width])}
        nodes.append(node("Slice", ["t", f"from{index}", f"to{index}", "axis", "step"], [f"s{index}"]))
        nodes.append(node("Squeeze", [f"s{index}", "axis"], [f"o{index}"]))
    outputs = {f"o{index}": (np.float32, SHAPE[1:]) for index in range(len(rows))}
    return make_graph(nodes, {"x": X}, outputs, **weights)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 1]])
def test_all_rows_of_a_tensor_are_one_split(rows: list[int], make_graph: Any, rewritten: Any) -> None:
    result, counts = rewritten(cut(make_graph, rows), {"x": X})
    assert counts[NAME] == 1
    table = operator_table(result)
    assert (table["Split"], table.get("Slice")) == (1, None)


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 1], [0, 1, 2, 2]])
def test_too_few_or_repeated_rows_stay(rows: list[int], make_graph: Any, rewritten: Any) -> None:
    _, counts = rewritten(cut(make_graph, rows), {"x": X})
    assert NAME not in counts


def test_a_reader_of_the_whole_tensor_keeps_the_slices(make_graph: Any, rewritten: Any) -> None:
    model = cut(make_graph, [0, 1, 2])
    model.graph.node.append(node("Neg", ["t"], ["whole"]))
    model.graph.output.append(helper.make_tensor_value_info("whole", onnx.TensorProto.FLOAT, SHAPE))
    _, counts = rewritten(model, {"x": X})
    assert NAME not in counts
