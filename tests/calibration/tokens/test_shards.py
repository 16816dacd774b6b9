"""Shards are spread over the source, rungs are theirs, and a plan's divergences are those of the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import small_vit, source_for

from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens import shards as sharding
from vitrim.calibration.tokens.rules import Rule
from vitrim.calibration.tokens.shards import Cut, Shards, survives
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.answers import divergence
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT


def test_every_shard_is_spread_over_the_source() -> None:
    cut = Cut(1000, 128)
    assert [len(shard) for shard in cut.shards] == [32] * 4
    assert all(max(shard) - min(shard) > 900 for shard in cut.shards)  # a folder of class folders is in class order
    assert len({index for shard in cut.shards for index in shard}) == 128
    assert Cut(40, 256).shards == [list(range(0, 40, 2)), list(range(1, 40, 2))]


@pytest.mark.parametrize(("images", "rungs"), [(256, [1, 3]), (128, [1, 3]), (96, [1]), (64, [1]), (32, []), (9, [])])
def test_no_rung_is_the_end(images: int, rungs: list[int]) -> None:
    assert Cut(1000, images).rungs == rungs


def test_the_best_third_survives() -> None:
    assert survives(5.0, [])
    assert survives(1.0, [2.0])
    assert not survives(2.0, [1.0])
    others = [float(value) for value in range(8)]
    assert [survives(value - 0.5, others) for value in range(9)] == [True] * 3 + [False] * 6


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_divergences_are_those_of_whole_models(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "MEMORY", memory)
    monkeypatch.setattr(sharding, "SHARD", 4)
    model, places = small_vit(depth=6), ((3,), (1, 4), (2,), (3,))
    source, shape = source_for(model, 8), describe(model)
    images = torch.from_numpy(read_all(source))
    judge = Shards(model, source, Cut(8, 8))
    with torch.inference_mode():
        dense = model(images).numpy()
        for blocks in places:
            rule = Rule(tuple(StagePlan(block) for block in blocks))
            budget = from_target(shape, "evit", {}, 0.85e0 * from_target_cost(shape), rule)
            whole = divergence(dense, PrunedViT(model, budget)(images).numpy())
            for shard in (1, 0):
                found = judge.distances(budget, shard)
                assert np.allclose(found, whole[shard::2], atol=1e-6)
                assert judge.distances(budget.model_copy(update={"statistics": {"weight": 1.0}}), shard) is found


def from_target_cost(shape: object) -> float:
    from vitrim.calibration.tokens.cost import dense_plan, model_macs

    return model_macs(shape, dense_plan(shape))  # type: ignore[arg-type]
