"""One guard: what fp16 cannot hold stays in float32 whichever half precision is written, and bf16's own besides."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from vitrim.exporter.graph.precision.guards import guard
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.graph.precision.misfits import misfits
from vitrim.exporter.graph.precision.ranges import Extent, extents_of
from vitrim.exporter.graph.shapes import with_shapes

make = helper.make_node
X = np.ones((1, 8), np.float32)


def chain(factor: float) -> onnx.ModelProto:
    """x -> first -> middle -> last -> y, whose middle value is `factor` times x."""
    nodes = [make("MatMul", ["x", "up"], ["a"], "first"), make("Abs", ["a"], ["b"], "middle")]
    nodes.append(make("MatMul", ["b", "down"], ["y"], "last"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8]) for name in "xy"]
    held = [
        onnx.numpy_helper.from_array((np.eye(8) * value).astype(np.float32), name)
        for name, value in (("up", factor), ("down", 1.0))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return with_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


@pytest.mark.parametrize(("factor", "side"), [(2e4, "overflowing"), (1e-7, "subnormal"), (1.0, None)])
def test_bf16_keeps_what_fp16_could_not_hold(factor: float, side: Any) -> None:
    model = chain(factor)
    extents = extents_of(model, [X])
    assert misfits(model, extents, "bf16", 4.0, ()).nodes == set()
    found = guard(model, extents, 4.0)
    own = misfits(model, extents, "fp16", 4.0, ())
    assert found.found == own
    assert found.nodes == own.nodes == ({"first", "middle", "last"} if side else set())
    assert set(getattr(found.found, side or "overflowing")) == found.nodes
    for half in ("fp16", "bf16"):
        assert set(to_half(model, half, found.nodes).float32_nodes) == found.nodes  # type: ignore[arg-type]


def test_both_halves_speak_and_the_worst_value_is_told() -> None:
    extents = dict.fromkeys("ab", Extent(1e39, 1e39))
    model = chain(1.0)
    found = guard(model, extents, 4.0)
    assert set(misfits(model, extents, "bf16", 4.0, ()).overflowing) == {"first", "middle", "last"}
    assert found.found.overflowing == dict.fromkeys(("first", "middle", "last"), 1e39)


def test_named_nodes_stay_and_unjudged_ones_are_not_asked() -> None:
    model = chain(2e4)
    extents = extents_of(model, [X])
    assert guard(model, extents, 4.0, {"last"}).nodes == {"first", "middle", "last"}
    named = guard(model, extents, 4.0, {"last"})
    assert set(named.found.overflowing) == {"first", "middle"}
    assert guard(model, extents, 4.0, unjudged={"first", "middle"}).nodes == {"last"}
