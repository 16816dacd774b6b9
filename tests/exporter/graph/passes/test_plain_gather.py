"""Gathers that read each index once, in every form that exporters write."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import export_module
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once

node = helper.make_node


class Pick(torch.nn.Module):
    """The best tokens, in a form that people write."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        index = x.sum(-1).topk(4, dim=1).indices
        images = torch.arange(batch)[:, None]
        if self.form == "pairs":
            return x[images, index]
        if self.form == "rows":
            return x.reshape(-1, width)[(index + images * tokens).reshape(-1)].reshape(batch, 4, width)
        if self.form == "stack":
            return torch.stack([x[image][index[image]] for image in range(batch)])
        if self.form == "constant":
            fixed = torch.tensor([1, 3, 5, 8])[None, :, None].expand(batch, -1, width)
            return x.gather(1, fixed)
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, width))


@pytest.mark.parametrize("form", ["gather", "pairs", "rows", "stack", "constant"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_form_becomes_a_gather(form: str, batch: int, rewritten: Any) -> None:
    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(0))
    result, _ = rewritten(export_module(Pick(form), x), {"x": x.numpy()})
    table = operator_table(result)
    assert {"GatherElements", "GatherND", "Expand"}.isdisjoint(table)
    assert table["Gather"] >= 1
    if form == "constant":  # the same tokens of every image: no offsets, whatever the batch
        assert table == {"Gather": 1}


@pytest.mark.parametrize("batch", [1, 3])
def test_each_index_is_read_once(batch: int, counts: Any) -> None:
    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(0))
    model = export_module(Pick("gather"), x)
    rewritten, reports = rewrite(model, get_target("ort-cpu"), {"x": x.numpy()})
    before, after = operator_table(model), operator_table(rewritten)
    assert before["GatherElements"] == 1
    assert "GatherElements" not in after
    assert "Expand" not in after
    assert counts(reports)["gather without expanded indices"] == 1
    expected = Pick("gather")(x).numpy()
    np.testing.assert_array_equal(run_once(rewritten, {"x": x.numpy()})["y"], expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_prefix_joins_the_index_of_a_pair_gather_too(batch: int, rewritten: Any) -> None:
    class Prefixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :2], Pick("pairs")(x[:, 2:])], dim=1)

    x = torch.randn(batch, 9, 6, generator=torch.Generator().manual_seed(1))
    result, counts = rewritten(export_module(Prefixed(), x), {"x": x.numpy()})
    assert counts["prefix tokens inside the index"] == 1
    assert operator_table(result)["Gather"] == 1


def expanded_gather(make_graph: Any, x: np.ndarray, index: np.ndarray) -> onnx.ModelProto:
    batch, count = index.shape
    nodes = [
        node("Unsqueeze", ["i", "last"], ["u"]),
        node("Expand", ["u", "shape"], ["e"]),
        node("GatherElements", ["x", "e"], ["y"], axis=1, name="pick"),
    ]
    shape = (batch, count, x.shape[2])
    constants = {"last": np.array([2]), "shape": np.array(shape)}
    return make_graph(nodes, {"x": x, "i": index}, {"y": (x.dtype, shape)}, **constants)


def test_an_index_that_might_be_negative_stays_with_the_reason(make_graph: Any, rewritten: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    feeds = {"x": x, "i": np.array([[-1, 0], [-2, 1]])}
    model = expanded_gather(make_graph, **{"x": x, "index": feeds["i"]})
    result, _ = rewritten(model, feeds)
    assert operator_table(result)["GatherElements"] == 1
    _, reports = rewrite(model, get_target("ort-cpu"))
    skipped = next(report.skipped for report in reports if report.skipped)
    assert skipped[0][0] == "pick"
    assert "might be negative" in skipped[0][1]
    one = {"x": x[:1], "i": np.array([[-1, 2]])}  # with one image -1 means the same in both forms
    result, _ = rewritten(expanded_gather(make_graph, one["x"], one["i"]), one)
    assert "GatherElements" not in operator_table(result)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(5, 40),
    width=st.integers(1, 9),
    prefix=st.integers(0, 3),
    pairs=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_size_gathers_the_same(
    batch: int,
    tokens: int,
    width: int,
    prefix: int,
    pairs: bool,
    seed: int,
    data: Any,
    make_graph: Any,
    rewritten: Any,
) -> None:
    patches = tokens - prefix
    keep = data.draw(st.integers(1, patches))
    x = np.random.default_rng(seed).standard_normal((batch, tokens, width)).astype(np.float32)
    images = np.broadcast_to(np.arange(batch).reshape(batch, 1, 1), (batch, keep, 1))
    nodes = [
        node("Slice", ["x", "p", "end", "axis"], ["patches"]),
        node("ReduceSum", ["patches", "last"], ["score"], keepdims=0),
        node("TopK", ["score", "k"], ["values", "index"]),
        node("Unsqueeze", ["index", "last"], ["column"]),
        node("Concat", ["images", "column"], ["pair"], axis=-1),
        node("GatherND", ["patches", "pair"], ["kept"])
        if pairs
        else node("GatherElements", ["patches", "wide"], ["kept"], axis=1),
        node("Slice", ["x", "zero", "p", "axis"], ["front"]),
        node("Concat", ["front", "kept"], ["y"], axis=1),
    ]
    if not pairs:
        nodes[4] = node("Expand", ["column", "shape"], ["wide"])
    if not prefix:
        nodes = [*nodes[:6], node("Identity", ["kept"], ["y"])]
    constants = {"p": [prefix], "end": [2**31], "axis": [1], "last": [2], "k": [keep], "zero": [0]}
    weights = {name: np.array(value) for name, value in constants.items()}
    weights |= {"images": images.copy(), "shape": np.array([batch, keep, width])}
    outputs = {"y": (np.float32, (batch, prefix + keep, width)), "index": (np.int64, (batch, keep))}
    model = make_graph(nodes, {"x": x}, outputs, **weights)
    result, counts = rewritten(model, {"x": x})
    table = operator_table(result)
    assert {"GatherElements", "GatherND", "Expand"}.isdisjoint(table)
    assert table["Gather"] == 1
    assert counts.get("prefix tokens inside the index", 0) == (1 if prefix else 0)
