"""Positions compared as floats: the same answers, also of numbers that float32 rounds, and no detour over integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "positions compared as floats"
node = helper.make_node


def compared(make_graph: Any, at: np.ndarray, values: np.ndarray) -> Any:
    shape = np.broadcast_shapes(at.shape, values.shape)
    return make_graph([node("Equal", ["at", "w"], ["y"])], {"at": at}, {"y": (np.bool_, shape)}, w=values)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_numbers_beyond_float32_equal_none_of_the_constants(dtype: Any, make_graph: Any, rewritten: Any) -> None:
    at = np.array([[0, 3, 2**24 - 1, 2**24, 2**24 + 1, -1, -(2**24) - 1]], dtype)
    values = np.array([[0], [3], [2**24 - 1], [-1]], dtype)
    result, counts = rewritten(compared(make_graph, at, values), {"at": at}, "openvino")
    assert counts[NAME] == 1
    assert operator_table(result) == {"Cast": 1, "Equal": 1}


@pytest.mark.parametrize(
    ("target", "dtype", "largest"),
    [("ort-cpu", np.int64, 3), ("trt-8.5", np.int64, 3), ("openvino", np.int64, 2**24), ("openvino", np.float32, 3)],
)
def test_what_stays(target: str, dtype: Any, largest: int, make_graph: Any, rewritten: Any) -> None:
    at, values = np.array([[0, 2, 3]], dtype), np.array([[0], [largest]], dtype)
    _, counts = rewritten(compared(make_graph, at, values), {"at": at}, target)
    assert NAME not in counts


def test_a_place_that_was_a_float_is_compared_as_one(make_graph: Any, rewritten: Any) -> None:
    """As a stage merges: the best match of every token that goes, gathered, shifted and compared with all that stay."""
    scores = np.random.default_rng(0).standard_normal((2, 5, 4)).astype(np.float32)
    nodes = [
        node("ArgMax", ["s"], ["best"], axis=2, keepdims=0),
        node("GatherElements", ["best", "gone"], ["where"], axis=1),
        node("Add", ["where", "three"], ["target"]),
        node("Unsqueeze", ["target", "axis"], ["row"]),
        node("Equal", ["row", "stays"], ["y"]),
    ]
    weights = {"three": np.array(3), "axis": np.array([1]), "stays": np.arange(8).reshape(1, 8, 1)}
    given = {"s": scores, "gone": np.array([[4, 0], [2, 2]])}
    model = make_graph(nodes, given, {"y": (np.bool_, (2, 8, 2))}, **weights)
    result, counts = rewritten(model, given, "openvino")
    assert counts[NAME] == 1
    assert "Cast" not in operator_table(result)
