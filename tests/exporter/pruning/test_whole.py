"""The model of a graph, with a plan or without one, behind one interface."""

from __future__ import annotations

from typing import Any

import torch
from helpers import budget_for

from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.whole import WholeModel, deployable


def test_last_tokens_stand_beside_the_answer(vit: Any) -> None:
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = deployable(vit, None, ("logits", "grid"))
    assert isinstance(whole, WholeModel)
    assert whole.output_names() == ["logits", "tokens"]
    with torch.inference_mode():
        logits, tokens = whole(image)
        assert torch.equal(tokens, vit.forward_features(image))
        assert torch.equal(logits, vit(image))
    assert deployable(vit, None).output_names() == ["logits"]


def test_tokens_that_are_left_stand_in_the_order_of_their_ids(vit: Any) -> None:
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    budget = budget_for(vit, {0: 12, 2: 8}, "evit")
    left, grid = (deployable(vit, budget, ("logits", how)) for how in ("left", "grid"))  # type: ignore[arg-type]
    assert left.output_names() == grid.output_names() == ["logits", "tokens"]
    found, whole = (TorchRunner(model, 2)(image.numpy()) for model in (left, grid))
    assert found["tokens"].shape == (2, 8, 48)
    assert "margin" not in found
    assert whole["margin"].shape == (2,)
    for row in range(2):
        kept = found["kept_2"][row]
        torch.testing.assert_close(found["tokens"][row], whole["tokens"][row][kept], atol=1e-6, rtol=0)
