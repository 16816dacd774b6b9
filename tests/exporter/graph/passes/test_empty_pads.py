"""Pads of nothing go; pads of something, and those whose output is the graph's, stay."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from vitrim.exporter.graph.lint.check import operator_table

node = helper.make_node
NAME = "pads of nothing taken out"


def test_a_pad_of_nothing_goes_and_all_its_readers_read_on(make_graph: Any, rewritten: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    nodes = [node("Pad", ["x", "none"], ["p"]), node("Neg", ["p"], ["a"]), node("Add", ["p", "a"], ["y"])]
    outputs = {"y": (np.float32, x.shape)}
    result, counts = rewritten(make_graph(nodes, {"x": x}, outputs, none=np.zeros(6, np.int64)), {"x": x})
    assert counts[NAME] == 1
    assert operator_table(result) == {"Neg": 1, "Add": 1}


def test_a_pad_of_something_stays(make_graph: Any, rewritten: Any) -> None:
    x = np.ones((2, 3), np.float32)
    nodes = [node("Pad", ["x", "some"], ["p"]), node("Neg", ["p"], ["y"])]
    some = np.array([0, 1, 0, 0])
    result, counts = rewritten(make_graph(nodes, {"x": x}, {"y": (np.float32, (2, 4))}, some=some), {"x": x})
    assert NAME not in counts
    assert operator_table(result)["Pad"] == 1


def test_an_output_keeps_its_name(make_graph: Any, rewritten: Any) -> None:
    x = np.ones((2, 3), np.float32)
    nodes = [node("Neg", ["x"], ["n"]), node("Pad", ["n", "none"], ["y"])]
    model = make_graph(nodes, {"x": x}, {"y": (np.float32, x.shape)}, none=np.zeros(4, np.int64))
    result, counts = rewritten(model, {"x": x})
    assert NAME not in counts
    assert [out.name for out in result.graph.output] == ["y"]
