"""A traced graph is simplified as onnxscript's own `optimize` does it, by fewer rules and in one round."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import budget_for, small_swin, small_vit

from vitrim.exporter.graph.simplify import simplify
from vitrim.exporter.graph.trace import OPSET, quiet
from vitrim.exporter.pruning.whole import deployable


def merging() -> tuple[Any, int]:
    """Methods that merge have Identities that the first round leaves."""
    vit = small_vit(depth=2, embed_dim=192)
    return deployable(vit, budget_for(vit, {0: 12, 1: 8}, "tome"), ("logits", "kept")), 64


def swin() -> tuple[Any, int]:
    """Reshapes of reshapes, and a classifier whose bias is still zero."""
    model = small_swin()
    torch.nn.init.zeros_(model.head.fc.bias)
    return model, 56


def stem() -> tuple[Any, int]:
    """Convolutions with BatchNorm, as hybrid models begin with."""
    layers = [torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()]
    torch.nn.init.uniform_(layers[1].running_var, 0.5, 2.0)
    return torch.nn.Sequential(*layers), 16


@pytest.mark.slow
@pytest.mark.parametrize("make", [merging, swin, stem])
def test_the_graph_is_that_of_all_rules_in_two_rounds(make: Any) -> None:
    module, size = make()
    image = torch.zeros(1, 3, size, size)
    with quiet(), torch.no_grad():
        ours, theirs = (
            torch.onnx.export(module.eval(), (image,), opset_version=OPSET, verbose=False, optimize=optimize)
            for optimize in (False, True)
        )
    assert ours is not None
    assert theirs is not None
    before = len(ours.model.graph)
    simplify(ours.model)
    assert ours.model_proto.SerializeToString(deterministic=True) == theirs.model_proto.SerializeToString(
        deterministic=True
    )
    assert len(ours.model.graph) < before
