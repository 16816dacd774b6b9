"""Graphs timed in this process as shares of one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.errors import EnvironmentLackError
from vitrim.exporter.runtime.bench.apart import clock_of, measuring, time_here


def products(path: Path, count: int) -> str:
    """A graph of so many products of [192, 192] matrices."""
    weight = np.random.default_rng(0).standard_normal((192, 192), dtype=np.float32) / 14
    nodes = [helper.make_node("MatMul", [f"x{at}", "w"], [f"x{at + 1}"], name=f"n{at}") for at in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 192, 192]) for name in ("x0", f"x{count}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return str(path)


def test_what_is_timed_is_told_as_shares_of_the_base(tmp_path: Path) -> None:
    graphs = {name: products(tmp_path / f"{name}.onnx", count) for name, count in (("one", 8), ("four", 32))}
    shares, milliseconds = measuring("one", "ort-cpu", 1, 12)((3, graphs))
    assert shares["one"] == 1
    assert 2.4 < shares["four"] < 6.5
    assert 0.01 < milliseconds < 100


def test_the_clock_is_the_processor_s_where_one_thread_computes_all() -> None:
    assert clock_of(1, True) == "processor"
    assert clock_of(2, True) == clock_of(1, False) == "wall"


def test_a_runtime_that_is_not_here_times_nothing(tmp_path: Path) -> None:
    graphs = {"one": products(tmp_path / "one.onnx", 1)}
    with pytest.raises(EnvironmentLackError, match="the graph is for trt-10.3, but only onnxruntime's CPU provider"):
        time_here((0, graphs), "one", "jetpack-6", 1, 1)
