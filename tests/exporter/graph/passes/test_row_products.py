"""Products of one row: what becomes a product and a sum, and what stays a matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "one-row products as sums"
node = helper.make_node
DRAW = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("row", "matrix"),
    [
        ((2, 3, 1, 5), (2, 3, 5, 7)),
        ((1, 1, 1, 5), (2, 3, 5, 7)),  # one start for all images and heads
        ((2, 1, 5), (2, 5, 7)),
        ((2, 3, 1, 5), (1, 3, 5, 7)),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_a_row_times_a_matrix_is_a_sum(
    row: tuple[int, ...], matrix: tuple[int, ...], constant: bool, make_graph: Any, rewritten: Any
) -> None:
    shape = (*np.broadcast_shapes(row[:-2], matrix[:-2]), 1, matrix[-1])
    given, weights = {"r": draw(*row), "m": draw(*matrix)}, {}
    if constant:
        weights["r"] = given.pop("r")
    model = make_graph([node("MatMul", ["r", "m"], ["y"])], given, {"y": (np.float32, shape)}, **weights)
    result, counts = rewritten(model, given)
    assert counts[NAME] == 1
    assert operator_table(result) == {"Mul": 1, "ReduceSum": 1} | ({} if constant else {"Transpose": 1})


def test_a_transposed_factor_is_taken_as_it_lies(make_graph: Any, rewritten: Any) -> None:
    nodes = [node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "t"], ["y"])]
    given = {"q": draw(2, 3, 1, 5), "k": draw(2, 3, 7, 5)}
    result, counts = rewritten(make_graph(nodes, given, {"y": (np.float32, (2, 3, 1, 7))}), given)
    assert counts[NAME] == 1
    assert operator_table(result) == {"Mul": 1, "ReduceSum": 1, "Reshape": 1}


@pytest.mark.parametrize(
    ("row", "matrix"),
    [
        ((2, 3, 2, 5), (2, 3, 5, 7)),  # two rows
        ((1, 5), (5, 7)),  # no batch of matrices
        ((2, 3, 1, 5), (2, 3, 5, 1)),  # one column
        ((2, 1, 5), (3, 2, 5, 7)),  # matrices that the row repeats for
    ],
)
def test_other_products_stay(row: tuple[int, ...], matrix: tuple[int, ...], make_graph: Any, rewritten: Any) -> None:
    given = {"r": draw(*row), "m": draw(*matrix)}
    shape = (given["r"] @ given["m"]).shape
    result, counts = rewritten(
        make_graph([node("MatMul", ["r", "m"], ["y"])], given, {"y": (np.float32, shape)}), given
    )
    assert NAME not in counts
    assert operator_table(result) == {"MatMul": 1}


def test_a_weight_stays_and_so_does_everything_on_onnxruntime(make_graph: Any, rewritten: Any) -> None:
    row, matrix = draw(2, 1, 5), draw(2, 5, 7)
    nodes, out = [node("MatMul", ["r", "m"], ["y"])], {"y": (np.float32, (2, 1, 7))}
    _, counts = rewritten(make_graph(nodes, {"r": row}, out, m=matrix), {"r": row})
    assert NAME not in counts
    _, counts = rewritten(make_graph(nodes, {"r": row, "m": matrix}, out), {"r": row, "m": matrix}, "ort-cpu")
    assert NAME not in counts
