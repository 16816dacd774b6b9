"""ArgMax and ArgMin by comparing: the same places, ties included, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

NAME = "first extreme by comparing"
node = helper.make_node


@settings(max_examples=12, deadline=None)
@given(
    op=st.sampled_from(["ArgMax", "ArgMin"]),
    axis=st.integers(-3, 2),
    keeps=st.booleans(),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    seed=st.integers(0, 99),
)
def test_the_first_of_equal_values_counts(
    op: str, axis: int, keeps: bool, shape: tuple[int, int, int], seed: int, make_graph: Any, rewritten: Any
) -> None:
    x = np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)  # three values: most have equals
    expected = getattr(np, op.lower())(x, axis=axis, keepdims=keeps)
    model = make_graph(
        [node(op, ["x"], ["at"], axis=axis, keepdims=int(keeps))], {"x": x}, {"at": (np.int64, expected.shape)}
    )
    result, counts = rewritten(model, {"x": x}, "openvino")
    assert counts[NAME] == 1
    assert op not in operator_table(result)


@pytest.mark.parametrize(
    ("target", "dtype", "options"),
    [
        ("ort-cpu", np.float32, {}),  # has a kernel for it
        ("trt-11", np.float32, {}),
        ("openvino", np.int32, {}),
        ("openvino", np.float32, {"select_last_index": 1}),
    ],
)
def test_what_stays(target: str, dtype: Any, options: dict[str, int], make_graph: Any, rewritten: Any) -> None:
    x = np.array([[3, 1, 3]], dtype)
    model = make_graph([node("ArgMax", ["x"], ["at"], axis=1, **options)], {"x": x}, {"at": (np.int64, (1, 1))})
    result, counts = rewritten(model, {"x": x}, target)
    assert NAME not in counts
    assert operator_table(result) == {"ArgMax": 1}
