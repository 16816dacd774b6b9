"""What any quantizer is to leave in float: every node that decides, merges or multiplies activations, once, by name."""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs
import pytest

from vitrim.exporter.graph.precision.float32_nodes import is_projection, wide_nodes
from vitrim.exporter.graph.precision.float_nodes import float_nodes


@pytest.mark.parametrize("method", ["tome", "frugal", "zero_tprune"])
@pytest.mark.parametrize("target", ["openvino", "trt-11"])
def test_every_deciding_node_is_there_once_and_no_projection(method: str, target: str, graphs: Any) -> None:
    graph = gs.import_onnx(graphs(method, target))
    found = float_nodes(graph)
    names = [name for group in found.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) <= {node.name for node in graph.nodes}
    assert wide_nodes(graph) <= set(names)
    nodes = {node.name: node for node in graph.nodes}
    products = [node for node in graph.nodes if node.op == "MatMul" and not is_projection(node)]
    assert {node.name for node in products} <= set(names)
    left = [node.name for node in graph.nodes if is_projection(node) and node.name not in names]
    assert len(left) == 2 * 4 + 2
    assert {nodes[name].op for name in found["attention"]} == {"MatMul"}
    assert len(found["attention"]) >= 4
    assert all(nodes[name].op == "MatMul" for name in found["similarities"])
    assert len(found["residuals"]) == 2 * 2
    assert (len(found["merges"]) > 0) == (method in ("tome", "frugal"))
    assert set(found) == {
        "similarities", "scores", "sizes", "merges", "attention", "residuals", "normalizations", "ranges", "embedding"
    }  # fmt: skip
