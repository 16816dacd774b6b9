"""Scores of the dense model: streamed, and the ones that a stage ranks by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_vit, source_for

from vitrim.calibration.tokens.budgets import make_budget
from vitrim.calibration.tokens.scores import gather, patches_for_mass, statistics
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT


def test_patches_for_mass_by_hand() -> None:
    importance = np.array([[[0.5, 0.3, 0.1, 0.1]], [[0.25, 0.25, 0.25, 0.25]], [[1.0, 0.0, 0.0, 0.0]]])
    assert patches_for_mass(importance, 0.8, 0.0).tolist() == [1]
    assert patches_for_mass(importance, 0.8, 0.5).tolist() == [2]
    assert patches_for_mass(importance, 0.8, 1.0).tolist() == [4]


def test_scores_are_streamed_to_a_file_and_independent_of_the_batch(tmp_path: Path) -> None:
    model = small_vit()
    seen: list[tuple[int, int]] = []
    one = gather(
        model, source_for(model, 5), "zero_tprune", {}, tmp_path / "a.npy", batch=2, progress=lambda *p: seen.append(p)
    )
    two = gather(model, source_for(model, 5), "zero_tprune", {}, tmp_path / "b.npy", batch=5)
    assert isinstance(one.importance, np.memmap)
    assert one.importance.shape == (5, 4, 16)
    np.testing.assert_allclose(one.importance.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(one.importance, two.importance, atol=1e-6)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    figures = statistics(one)
    assert figures["images"] == 5
    assert len(figures["heads_kept"]) == 4
    half, most = figures["patches_for_mass_0.5"], figures["patches_for_mass_0.95"]
    assert all(a < b <= 16 for a, b in zip(half, most, strict=True))


def test_scores_equal_the_stage_s_own(tmp_path: Path) -> None:
    """What calibration measures is what a stage ranks by: the top patches of a stage without similarity."""
    model = small_vit()
    source = source_for(model, 3)
    scores = gather(model, source, "zero_tprune", {}, tmp_path / "a.npy").importance
    shape = describe(model)
    budget = make_budget(shape, "zero_tprune", {"place": "after_block"}, [StagePlan(1, 7, options={"iterations": 5})])
    with torch.inference_mode():
        kept = PrunedViT(model, budget).trace(torch.from_numpy(source.pixels)).kept[1]
    for image in range(3):
        best = np.sort(np.argsort(-scores[image, 1])[:7]) + 1
        assert kept[image, 1:].tolist() == best.tolist()


def test_methods_without_scores_are_named(tmp_path: Path) -> None:
    model = small_vit()
    with pytest.raises(InputError, match="uniform has no scores"):
        gather(model, source_for(model, 5), "uniform", {}, tmp_path / "a.npy")
