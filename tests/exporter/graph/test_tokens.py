"""A graph of any number of tokens made one of a certain number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_vit

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import read_bare, read_whole
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.store import WeightStore
from vitrim.exporter.graph.tokens import with_tokens
from vitrim.exporter.graph.trace import trace_free_into
from vitrim.exporter.pruning.parts import Halves
from vitrim.exporter.runtime.runners import OrtRunner


@pytest.mark.slow
def test_one_trace_serves_every_number_of_tokens(tmp_path: Path) -> None:
    half = Halves(small_vit(depth=2), "attention")
    with WeightStore(tmp_path) as store:
        trace_free_into(store, "half.onnx", half, 2, half.least)
    free, weights = read_bare(tmp_path / "half.onnx")
    before = free.SerializeToString()
    for count in (1, 6, 17):
        fixed = with_tokens(free, count)
        shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in fixed.graph.input]
        assert shapes == [[2, count, 48]]
        assert not {"Shape", "Gather"} & set(operator_table(fixed))
        graph, _ = rewrite(fixed, get_target("ort-cpu"), fused_attention=True, weights=weights)
        assert operator_table(graph)["Attention"] == 2
        with WeightStore(tmp_path / str(count)) as store:
            store.save(graph, "g.onnx", weights)
        x = torch.randn(2, count, 48, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            wanted = half(x).numpy()
        whole = read_whole(tmp_path / str(count) / "g.onnx").SerializeToString()
        np.testing.assert_allclose(OrtRunner(whole)(x.numpy())["tokens"], wanted, atol=1e-5)
    assert free.SerializeToString() == before
