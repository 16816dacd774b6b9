"""A pass held against the graph before it: near-ties are told from wrong scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.core.errors import ParityError, UnsupportedError
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.verify import Line, hold_against, hold_with_decisions, only_until, run_once

X = np.array([[[5.0, 1], [3, 2], [3, 4], [1, 8]]], np.float32)  # tokens 1 and 2 tie in the first column


def ranked(make_graph: Any, nudge: list[float], gain: float = 1.0) -> onnx.ModelProto:
    """The two best tokens by their first column and a nudge, times a gain."""
    make = helper.make_node
    nodes = [
        make("Gather", ["x", "first"], ["column"], axis=2),
        make("Add", ["column", "nudge"], ["score"]),
        make("TopK", ["score", "k"], ["values", "index"]),
        make("Reshape", ["index", "flat"], ["rows"]),
        make("Gather", ["x", "rows"], ["kept"], axis=1),
        make("Mul", ["kept", "gain"], ["y"]),
    ]
    weights = {"first": np.array(0), "nudge": np.array([nudge], np.float32), "k": np.array([2])}
    outputs = {"y": (np.float32, (1, 2, 2)), "index": (np.int64, (1, 2))}
    model = make_graph(nodes, {"x": X}, outputs, flat=np.array([2]), gain=np.float32(gain), **weights)
    return with_shapes(model)


def test_a_near_tie_that_falls_the_other_way_is_no_fault(make_graph: Any) -> None:
    before, after = ranked(make_graph, [0, 1e-6, 0, 0]), ranked(make_graph, [0, 0, 1e-6, 0])
    outputs = [run_once(model, {"x": X}) for model in (before, after)]
    assert outputs[0]["index"].tolist() == [[0, 1]]
    assert outputs[1]["index"].tolist() == [[0, 2]]
    with pytest.raises(ParityError):
        hold_against("p", *outputs)
    assert hold_with_decisions("p", before, after, {"x": X}) == (0.0, 1)


def test_wrong_scores_do_not_pass_as_a_near_tie(make_graph: Any) -> None:
    before, after = ranked(make_graph, [0, 0.1, 0, 0]), ranked(make_graph, [0, 0, 0.1, 3])
    assert hold_with_decisions("p", before, after, {"x": X}) is None


def test_wrong_numbers_do_not_pass_behind_a_near_tie(make_graph: Any) -> None:
    before, after = ranked(make_graph, [0, 1e-6, 0, 0]), ranked(make_graph, [0, 0, 1e-6, 0], gain=1.1)
    with pytest.raises(ParityError, match="changed the output y by"):
        hold_with_decisions("p", before, after, {"x": X})


def test_equal_decisions_leave_the_first_verdict(make_graph: Any) -> None:
    before = ranked(make_graph, [0, 0, 1, 0])
    assert hold_with_decisions("p", before, ranked(make_graph, [0, 0, 1, 0], gain=2), {"x": X}) is None


def test_graphs_run_as_they_are_written(make_graph: Any) -> None:
    """onnxruntime would fuse the scales of a product into it, and so make different graphs equal."""
    make = helper.make_node
    nodes = [
        make("Mul", ["x", "s"], ["a"]),
        make("Mul", ["w", "s"], ["b"]),
        make("MatMul", ["a", "b"], ["split"]),
        make("Mul", ["x", "ss"], ["c"]),
        make("MatMul", ["c", "w"], ["once"]),
    ]
    x = np.random.default_rng(0).standard_normal((1, 4, 64)).astype(np.float32)
    scale = np.float32(64**-0.25)
    weights = {"w": x[0].T.copy(), "s": scale, "ss": scale * scale}
    model = make_graph(nodes, {"x": x}, dict.fromkeys(("split", "once"), (np.float32, (1, 4, 4))), **weights)
    outputs = run_once(model, {"x": x})
    assert 0 < np.abs(outputs["split"] - outputs["once"]).max() < 1e-5


def test_comparison_of_a_pass_names_what_changed() -> None:
    kept = np.array([[0, 1, 2]], dtype=np.int32)
    with pytest.raises(ParityError, match="changed the decisions in kept_1"):
        hold_against("p", {"kept_1": kept}, {"kept_1": kept + 1})
    with pytest.raises(ParityError, match="its shape, type or name differ"):
        hold_against("p", {"kept_1": kept}, {})
    with pytest.raises(ParityError, match="by nan"):
        hold_against("p", {"y": np.ones(2, np.float32)}, {"y": np.array([1, np.nan], np.float32)})
    assert hold_against("p", {"y": X}, {"y": X + np.float32(2e-6)}) == pytest.approx(2e-6, rel=0.2)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e6, 1e20])
def test_a_pass_is_held_to_the_size_of_its_outputs(scale: float) -> None:
    """Scaled outputs pass and fail alike; zeros, a constant and the wrong order never pass."""
    old = (X * scale).astype(np.float32)
    assert hold_against("p", {"y": old}, {"y": old * np.float32(1 + 1e-6)}) <= 1e-5 * 8 * scale
    for new in (old * np.float32(1 + 1e-3), np.zeros_like(old), np.full_like(old, old.mean()), old[:, ::-1]):
        with pytest.raises(ParityError, match="changed the output y by"):
            hold_against("p", {"y": old}, {"y": np.ascontiguousarray(new)})


def test_zeros_must_stay_zeros_and_infinities_loosen_nothing() -> None:
    zeros, masked = np.zeros(2, np.float32), np.array([-np.inf, 1, 2], np.float32)
    assert hold_against("p", {"y": zeros}, {"y": zeros}) == 0
    with pytest.raises(ParityError, match="more than 0"):
        hold_against("p", {"y": zeros}, {"y": zeros + np.float32(1e-7)})
    assert hold_against("p", {"y": masked}, {"y": masked}) == 0
    with pytest.raises(ParityError, match=r"by 0\.5"):
        hold_against("p", {"y": masked}, {"y": masked + np.float32(0.5)})


def test_values_that_hardly_differ_are_still_told_apart() -> None:
    old = np.float32(1e4) + np.linspace(0, 0.5, 8, dtype=np.float32)
    for new in (np.full_like(old, old.mean()), old[::-1].copy()):
        with pytest.raises(ParityError, match="changed the output y by"):
            hold_against("p", {"y": old}, {"y": new})


def test_a_line_of_graphs_is_held_one_by_one(make_graph: Any) -> None:
    graphs = [ranked(make_graph, [0, 0, 1, 0], gain=gain) for gain in (1.0, 1.0, 1.5)]
    line = Line(graphs[0], {"x": X})
    assert line.hold("same", graphs[1]) == (0.0, 0)
    assert line.last is graphs[1]
    with pytest.raises(ParityError, match="pass 'louder' changed the output y by"):
        line.hold("louder", graphs[2])
    near = [ranked(make_graph, nudge) for nudge in ([0, 1e-6, 0, 0], [0, 0, 1e-6, 0])]
    assert Line(near[0], {"x": X}).hold("reordered", near[1]) == (0.0, 1)


def test_a_line_without_inputs_runs_nothing(make_graph: Any) -> None:
    graphs = [ranked(make_graph, [0, 0, 1, 0], gain=gain) for gain in (1.0, 1.5)]
    line = Line(graphs[0], None)
    assert line.hold("louder", graphs[1]) == (None, 0)


def test_a_graph_that_does_not_run_is_named_by_its_pass(make_graph: Any) -> None:
    first = ranked(make_graph, [0, 0, 1, 0])
    broken = onnx.ModelProto()
    broken.CopyFrom(first)
    broken.graph.node[0].op_type = "Det"
    with pytest.raises(UnsupportedError, match=r"^after the pass 'spoil': onnxruntime .* cannot run the graph"):
        Line(first, {"x": X}).hold("spoil", broken)


def test_the_part_that_makes_a_value_runs_alone(make_graph: Any) -> None:
    model = ranked(make_graph, [0, 0, 1, 0])
    part = only_until(model, ["score"])
    assert [each.op_type for each in part.graph.node] == ["Gather", "Add"]
    assert {tensor.name for tensor in part.graph.initializer} == {"first", "nudge"}
    np.testing.assert_array_equal(run_once(part, {"x": X})["score"], [[5, 3, 4, 1]])
    assert len(model.graph.node) == 6
