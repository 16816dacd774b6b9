"""A model in PyTorch behind the runner interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from helpers import budget_for, small_vit

from vitrim.exporter.pruning.torch_runner import TorchRunner, evaluating, replay_of
from vitrim.exporter.pruning.vit import PrunedViT


def test_runner_returns_numpy_and_int32_ids(vit: Any) -> None:
    runner = TorchRunner(PrunedViT(vit, budget_for(vit, {1: 9})), batch=2)
    result = runner(np.zeros((2, 3, 64, 64), dtype=np.float32))
    assert set(result) == {"logits", "kept_1", "gap_1"}
    assert result["kept_1"].dtype == np.int32
    assert result["logits"].shape == (2, 7)


def test_given_decisions_are_followed(vit: Any) -> None:
    runner = TorchRunner(PrunedViT(vit, budget_for(vit, {1: 9, 2: 6}, "tome")), batch=2)
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    found = runner(image)
    decided = {name: value for name, value in found.items() if name.startswith(("kept_", "merged_"))}
    assert sorted(decided) == ["kept_1", "kept_2", "merged_1", "merged_2"]
    again = runner(image, decided)
    np.testing.assert_allclose(again["logits"], found["logits"], atol=2e-6)
    swapped = runner(image, {name: value[::-1] for name, value in decided.items()})
    assert np.abs(swapped["logits"] - found["logits"]).max() > 1e-3
    np.testing.assert_array_equal(swapped["kept_2"], found["kept_2"][::-1])
    assert replay_of(decided).kept[1].dtype == torch.int64


def test_a_model_in_training_is_run_in_evaluation_mode_and_gets_its_modes_back() -> None:
    model = small_vit(drop_path_rate=0.9, seed=3)
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    expected = TorchRunner(PrunedViT(model, budget_for(model, {1: 9})), 2)(image)["logits"]
    model.train()
    model.blocks[3].eval()
    runner = TorchRunner(PrunedViT(model, budget_for(model, {1: 9})), 2)
    np.testing.assert_array_equal(runner(image)["logits"], expected)
    assert (model.training, model.blocks[2].training, model.blocks[3].training) == (True, True, False)
    try:
        with evaluating(model):
            assert not model.training
            raise RuntimeError("stopped")
    except RuntimeError:
        assert (model.training, model.blocks[3].training) == (True, False)
