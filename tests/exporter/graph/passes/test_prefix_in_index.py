"""Prefix tokens inside the index: the tokens that are never pruned are gathered with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import export_module
from onnx import helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once

NAME = "prefix tokens inside the index"
node = helper.make_node


class Prefixed(torch.nn.Module):
    """The first token, and others picked by score."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x[:, 1:]
        index = patches.sum(-1).topk(self.keep, dim=1).indices
        return torch.cat([x[:, :1], patches.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))], dim=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_prefix_tokens_move_into_the_index(batch: int, counts: Any) -> None:
    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(1))
    model = export_module(Prefixed(4), x)
    rewritten, reports = rewrite(model, get_target("ort-cpu"), {"x": x.numpy()})
    assert counts(reports)["prefix tokens inside the index"] == 1
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], Prefixed(4)(x).numpy())
    concats = [node for node in rewritten.graph.node if node.op_type == "Concat"]
    assert all("x" not in node.input for node in concats)


def picked(make_graph: Any, start: int, end: int) -> Any:
    """Token 0, and two of the tokens from `start` on."""
    nodes = [
        node("Slice", ["x", "zero", "end", "axis"], ["front"]),
        node("Slice", ["x", "start", "last", "axis"], ["back"]),
        node("Gather", ["back", "index"], ["kept"], axis=1),
        node("Concat", ["front", "kept"], ["y"], axis=1, name="join"),
    ]
    x = np.random.default_rng(0).standard_normal((1, 6, 3)).astype(np.float32)
    places = {"zero": [0], "end": [end], "start": [start], "last": [6], "axis": [1], "index": [2, 0]}
    weights = {name: np.array(value) for name, value in places.items()}
    return make_graph(nodes, {"x": x}, {"y": (np.float32, (1, end + 2, 3))}, **weights), {"x": x}


def test_parts_of_one_tensor_become_one_gather(make_graph: Any, rewritten: Any) -> None:
    result, counts = rewritten(*picked(make_graph, 1, 1))
    assert counts[NAME] == 1
    assert operator_table(result) == {"Gather": 1}


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 2)])
def test_parts_that_leave_a_gap_or_overlap_stay_with_the_reason(
    start: int, end: int, make_graph: Any, rewritten: Any
) -> None:
    model, feeds = picked(make_graph, start, end)
    _, counts = rewritten(model, feeds)
    assert NAME not in counts
    _, reports = rewrite(model, get_target("ort-cpu"))
    skipped = next(report.skipped for report in reports if report.name == NAME)
    assert skipped == [("join", "prefix and patches are not the two parts of one tensor")]
