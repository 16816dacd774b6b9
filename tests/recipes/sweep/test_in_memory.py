"""A model in hand, swept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_vit

import vitrim
from vitrim.exporter.core.errors import InputError


def batches(count: int) -> list[Any]:
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 64, 64, generator=draw), torch.randint(0, 7, (4,), generator=draw)) for _ in range(count)
    ]


def test_a_model_and_a_loader_make_a_sweep(tmp_path: Path) -> None:
    model = small_vit().train()
    found = vitrim.sweep(
        model, batches(4), out=tmp_path / "s", methods=["tome"], ratios=(0.6, 0.7), target="trt-10", agreements=(0.1,)
    )
    assert [row.name for row in found.points] == ["tome at 0.6 in fp32", "tome at 0.7 in fp32"]
    assert found.images == 8
    assert found.best(agreement=0.01) is not None
    assert found.chosen[0].point is not None
    assert found.chosen[0].recipe is None  # it could not name the model
    assert model.training


def test_what_cannot_be_swept_says_so() -> None:
    model = small_vit()
    with pytest.raises(InputError, match="sweep: give images="):
        vitrim.sweep(model)
    with pytest.raises(InputError, match="sweep: this model is pruned already"):
        vitrim.sweep(vitrim.prune(model, "tome", flops_ratio=0.7), batches(1))
