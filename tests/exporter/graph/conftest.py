"""Small hand-made graphs for the passes, and one way to hold a rewritten graph against the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

Graph = Callable[..., onnx.ModelProto]
Check = Callable[..., tuple[onnx.ModelProto, dict[str, int]]]


@pytest.fixture(scope="session")
def make_graph() -> Graph:
    """(nodes, inputs as arrays, outputs as {name: (numpy type, shape)}, opset, **weights) -> model."""

    def make(
        nodes: list[onnx.NodeProto],
        inputs: dict[str, np.ndarray],
        outputs: dict[str, tuple[Any, tuple[int, ...]]],
        opset: int = 20,
        **weights: np.ndarray,
    ) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype
        ins = [helper.make_tensor_value_info(name, kind(x.dtype), x.shape) for name, x in inputs.items()]
        outs = [helper.make_tensor_value_info(name, kind(np.dtype(t)), shape) for name, (t, shape) in outputs.items()]
        held = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "g", ins, outs, held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    return make


@pytest.fixture(scope="session")
def rewritten() -> Check:
    """(model, feeds, target) -> the rewritten model, equal to the one before and valid, and passes' counts."""
    from vitrim.exporter.core.targets import get_target
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.verify import run_once

    def check(
        model: onnx.ModelProto,
        feeds: dict[str, np.ndarray],
        target: str = "trt-8.5",
        atol: float = 2e-5,
        **options: Any,
    ) -> tuple[onnx.ModelProto, dict[str, int]]:
        untouched = model.SerializeToString(deterministic=True)
        result, reports = rewrite(model, get_target(target), None, **options)
        assert model.SerializeToString(deterministic=True) == untouched
        onnx.checker.check_model(result, full_check=True)
        before, after = run_once(model, feeds), run_once(result, feeds)
        assert list(before) == list(after)
        for name, old in before.items():
            assert after[name].shape == old.shape
            assert after[name].dtype == old.dtype
            np.testing.assert_allclose(after[name], old, atol=atol, rtol=1e-5, err_msg=name)
        static = [
            all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
            for value in (*result.graph.value_info, *result.graph.output)
        ]
        assert all(static)
        return result, {report.name: report.count for report in reports if report.count}

    return check
