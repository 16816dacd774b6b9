"""The control that keeps the first tokens, which is every plan's floor."""

from __future__ import annotations

from typing import Any

import torch
from helpers import budget_for, make_evidence

from vitrim.exporter.pruning.methods import FLOOR, get_method
from vitrim.exporter.pruning.vit import PrunedViT


def test_slice_control_keeps_the_first_tokens(vit: Any) -> None:
    pruned = PrunedViT(vit, budget_for(vit, {1: 9, 2: 5}, "slice"))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(1, 3, 64, 64))
    assert trace.kept[2].tolist() == [[0, 1, 2, 3, 4]]


def test_it_names_no_tokens_so_that_no_gather_is_made() -> None:
    method = get_method(FLOOR)
    selection = method.select(make_evidence(0, 1, 6, 1), 4, method.StageOptions(), method.Parameters())
    assert (selection.kept, selection.gap, selection.merge, selection.fused) == (None, None, None, None)
    assert (method.reads, method.has_scores, method.merges) == ("none", False, False)
