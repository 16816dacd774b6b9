"""What no pass could write in another form is refused, with the reason why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import export_module
from onnx import helper

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.base import Context, PassReport
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.passes.survivors import NO_SURVIVORS

node = helper.make_node
X = np.ones((1, 4), np.float32)


class Greatest(torch.nn.Module):
    """Tokens merged by their greatest values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        source, target = x[:, :6], x[:, 6:]
        index = (source @ target.transpose(1, 2)).argmax(-1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        return target.scatter_reduce(1, index, source, "amax", include_self=True)


def test_a_scatter_that_is_no_sum_is_refused_by_name() -> None:
    x = torch.randn(1, 9, 5)
    with pytest.raises(
        UnsupportedError, match=r"node .*Scatter.* cannot be written without a scatter: reduction is 'max'"
    ):
        rewrite(export_module(Greatest(), x), get_target("ort-cpu"))


def test_an_operator_that_the_target_lacks_is_refused_by_name(make_graph: Any) -> None:
    model = make_graph([node("Gelu", ["x"], ["y"], name="act")], {"x": X}, {"y": (np.float32, X.shape)})
    with pytest.raises(UnsupportedError, match=r"node act: trt-8.6 has no Gelu, and it must stay: no pass knows this"):
        NO_SURVIVORS.run(model, Context(get_target("trt-8.6")))
    known = Context(get_target("trt-8.6")).after(PassReport("p", skipped=[("act", "it is tired")]))
    with pytest.raises(UnsupportedError, match=r"node act: trt-8.6 has no Gelu, and it must stay: it is tired"):
        NO_SURVIVORS.run(model, known)


def test_a_graph_that_the_target_takes_is_left_as_it_is(make_graph: Any) -> None:
    model = make_graph([node("Gelu", ["x"], ["y"])], {"x": X}, {"y": (np.float32, X.shape)})
    same, report = NO_SURVIVORS.run(model, Context(get_target("ort-cpu")))
    assert same is model
    assert report.count == 0
