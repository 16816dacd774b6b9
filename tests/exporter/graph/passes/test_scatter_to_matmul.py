"""Scatters written as one-hot products: repeated and negative indices, every shape, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import export_module
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.verify import run_once

node = helper.make_node
R = 6


class Merge(torch.nn.Module):
    """Six tokens added to, or written over, the others; several share a target."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        source, target, width = x[:, :R], x[:, R:], x.shape[-1]
        best = (source @ target.transpose(1, 2)).argmax(-1)
        wide, images = best.unsqueeze(-1).expand(-1, -1, width), torch.arange(x.shape[0])[:, None]
        top = x.sum(-1).topk(4, dim=1).indices
        forms: dict[str, Any] = {
            "scatter_add": lambda: target.scatter_add(1, wide, source),
            "sizes": lambda: target[..., 0].scatter_add(1, best, source[..., 0]),
            "sum": lambda: target.scatter_reduce(1, wide, source, "sum", include_self=True),
            "sum without self": lambda: target.scatter_reduce(1, wide, source, "sum", include_self=False),
            "index_add": lambda: target.index_add(1, best[0], source),
            "index_add rows": lambda: target[0].index_add(0, best[0], source[0]),
            "index_put": lambda: target.index_put((images, best), source, accumulate=True),
            "overwrite": lambda: x.scatter(1, top.unsqueeze(-1).expand(-1, -1, width), x[:, :4]),
            "overwrite pairs": lambda: x.index_put((images, top), x[:, :4]),
            "mask": lambda: torch.zeros_like(x[..., 0]).scatter(1, top, 1.0),
        }
        return forms[self.form]()


FORMS = ["scatter_add", "sizes", "sum", "sum without self", "index_add", "index_add rows", "index_put"]


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS, "overwrite", "overwrite pairs", "mask"])
@pytest.mark.parametrize("batch", [1, 3])
def test_torch_forms_lose_their_scatter(form: str, batch: int, rewritten: Any) -> None:
    x = torch.randn(batch, 11, 5, generator=torch.Generator().manual_seed(2))
    best = (x[:, :R] @ x[:, R:].transpose(1, 2)).argmax(-1)
    assert all(len(set(row.tolist())) < R for row in best)
    model = export_module(Merge(form), x)
    assert any(op.startswith("Scatter") for op in operator_table(model))
    result, counts = rewritten(model, {"x": x.numpy()})
    assert counts["merge without scatter"] >= 1
    assert not any(op.startswith("Scatter") for op in operator_table(result))


@pytest.mark.parametrize("form", ["scatter_add", "sum", "index_put"])
@pytest.mark.parametrize("batch", [1, 3])
def test_merging_survives_in_the_whole_line_with_repeated_indices(form: str, batch: int, counts: Any) -> None:
    x = torch.randn(batch, 11, 5, generator=torch.Generator().manual_seed(2))
    index = (x[:, :R] @ x[:, R:].transpose(1, 2)).argmax(-1)
    assert all(len(set(row.tolist())) < R for row in index)  # several sources share a target
    model = export_module(Merge(form), x)
    assert any(op.startswith("Scatter") for op in operator_table(model))
    rewritten, reports = rewrite(model, get_target("trt-8.5"), {"x": x.numpy()})
    assert counts(reports)["merge without scatter"] == 1
    assert not any(op.startswith("Scatter") for op in operator_table(rewritten))
    np.testing.assert_allclose(run_once(rewritten, {"x": x.numpy()})["y"], Merge(form)(x).numpy(), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(5, 40),
    count=st.integers(1, 20),
    width=st.integers(1, 9),
    nd=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.int32]),
    negative=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_sum_is_exact_with_repeats(
    batch: int,
    tokens: int,
    count: int,
    width: int,
    nd: bool,
    dtype: Any,
    negative: bool,
    seed: int,
    make_graph: Any,
    rewritten: Any,
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((batch, tokens, width)) * 20).astype(dtype)
    updates = (rng.standard_normal((batch, count, width)) * 20).astype(dtype)
    index = rng.integers(-tokens if negative else 0, tokens, (batch, count, 1))
    if nd:
        images = np.broadcast_to(np.arange(batch).reshape(batch, 1, 1), index.shape).copy()
        nodes = [
            node("Concat", ["images", "i"], ["pair"], axis=2),
            node("ScatterND", ["x", "pair", "u"], ["y"], reduction="add"),
        ]
        weights = {"images": images}
    else:
        nodes = [
            node("Expand", ["i", "shape"], ["e"]),
            node("ScatterElements", ["x", "e", "u"], ["y"], axis=-2, reduction="add"),
        ]
        weights = {"shape": np.array([batch, count, width])}
    feeds = {"x": x, "u": updates, "i": index}
    result, _ = rewritten(make_graph(nodes, feeds, {"y": (dtype, x.shape)}, **weights), feeds, atol=1e-4)
    assert not any(op.startswith("Scatter") for op in operator_table(result))


def scatter_nd(make_graph: Any, index: np.ndarray, **attributes: Any) -> Any:
    x, updates = np.zeros((2, 4, 3), np.float32), np.ones((*index.shape[:2], 3), np.float32)
    nodes = [node("ScatterND", ["x", "i", "u"], ["y"], name="merge", **attributes)]
    return make_graph(nodes, {"x": x, "u": updates}, {"y": (np.float32, x.shape)}, i=index)


def test_pairs_that_name_another_image_are_refused(make_graph: Any) -> None:
    swapped = np.array([[[1, 0], [1, 0]], [[0, 3], [0, 3]]])
    with pytest.raises(UnsupportedError, match=r"node merge .*does not name tokens of its own image"):
        rewrite(scatter_nd(make_graph, swapped, reduction="add"), get_target("ort-cpu"))


def test_pairs_with_a_computed_column_must_name_their_own_image_too(make_graph: Any, rewritten: Any) -> None:
    """The token is an input here; only the image's column tells that the rows are another image's."""
    rng = np.random.default_rng(0)
    feeds = {"x": rng.random((2, 4, 3), np.float32), "i": np.array([[[0], [0]], [[3], [1]]])}
    pair = node("Concat", ["images", "i"], ["pair"], axis=2)
    add = node("ScatterND", ["x", "pair", "u"], ["y"], name="merge", reduction="add")
    pick = node("GatherND", ["x", "pair"], ["y"], name="pick")
    updates = {"u": rng.random((2, 2, 3), np.float32)}
    for images, own in [([[[0], [0]], [[1], [1]]], True), ([[[1], [1]], [[0], [0]]], False)]:
        column = np.array(images)
        merge = make_graph([pair, add], {**feeds, **updates}, {"y": (np.float32, (2, 4, 3))}, images=column)
        if own:
            rewritten(merge, {**feeds, **updates})
        else:
            with pytest.raises(UnsupportedError, match=r"node merge .*does not name tokens of its own image"):
                rewrite(merge, get_target("ort-cpu"))
        gather = make_graph([pair, pick], feeds, {"y": (np.float32, (2, 2, 3))}, images=column)
        result, _ = rewritten(gather, feeds)
        assert "GatherND" in operator_table(result)  # the token might be negative, or the image is another


def test_overwriting_needs_distinct_targets(make_graph: Any, rewritten: Any) -> None:
    distinct, repeated = np.array([[[0, 0], [0, 2]], [[1, 3], [1, 1]]]), np.array([[[0, 0], [0, 0]], [[1, 3], [1, 1]]])
    rng = np.random.default_rng(0)
    feeds = {"x": rng.random((2, 4, 3), np.float32), "u": rng.random((2, 2, 3), np.float32)}
    rewritten(scatter_nd(make_graph, distinct), feeds)
    with pytest.raises(UnsupportedError, match=r"node merge .*may be named twice, so the order of writing"):
        rewrite(scatter_nd(make_graph, repeated), get_target("ort-cpu"))
    wrapped = np.array([[[0, 3], [0, -1]], [[1, 3], [1, 1]]])  # 3 and -1 are one token
    with pytest.raises(UnsupportedError, match="may be named twice"):
        rewrite(scatter_nd(make_graph, wrapped), get_target("ort-cpu"))


@pytest.mark.parametrize("reduction", ["mul", "max", "min"])
def test_other_reductions_are_refused(make_graph: Any, reduction: str) -> None:
    index = np.array([[[0, 0], [0, 1]], [[1, 0], [1, 1]]])
    with pytest.raises(UnsupportedError, match=rf"node merge .*reduction is '{reduction}'"):
        rewrite(scatter_nd(make_graph, index, reduction=reduction), get_target("ort-cpu"))
