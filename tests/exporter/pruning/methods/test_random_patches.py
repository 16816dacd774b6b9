"""The control that keeps patches drawn once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import budget_for, make_evidence

from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.vit import PrunedViT

random = get_method("random")


def kept(seed: int, patches: int, keep: int, prefix: int, image: int = 0) -> list[int]:
    evidence = make_evidence(image, 1, patches, prefix)
    found = random.select(evidence, keep, random.StageOptions(seed=seed), random.Parameters()).kept
    assert found is not None
    assert found.tolist() == [found[0].tolist()] * 2
    return found[0].tolist()


def test_the_draw_depends_on_the_seed_and_the_count_alone() -> None:
    assert kept(1, 16, 5, 1) == kept(1, 16, 5, 1, image=7)
    assert len({tuple(kept(seed, 16, 5, 1)) for seed in range(8)}) > 4
    assert kept(1, 16, 5, 1) == [0, 5, 7, 8, 16]  # what older budgets mean by seed 1 must not change


def test_a_smaller_stage_keeps_a_part_of_what_a_larger_one_keeps() -> None:
    draws = [set(kept(3, 12, keep, 2)) for keep in range(3, 15)]
    assert all(fewer < more for fewer, more in itertools.pairwise(draws))
    assert draws[-1] == set(range(14))


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_prefix_stays_and_every_patch_has_the_same_chance(prefix: int) -> None:
    counts = [0] * (10 + prefix)
    for seed in range(200):
        found = kept(seed, 10, prefix + 3, prefix)
        assert found == sorted(set(found))
        for place in found:
            counts[place] += 1
    assert counts[:prefix] == [200] * prefix
    assert all(30 < count < 90 for count in counts[prefix:])  # 60 expected, 6.5 of standard deviation


def test_the_model_takes_another_draw_for_another_seed(vit: Any) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        one = PrunedViT(vit, budget_for(vit, {1: 5}, "random", seed=1)).trace(images).kept[1]
        two = PrunedViT(vit, budget_for(vit, {1: 5}, "random", seed=2)).trace(images).kept[1]
    assert torch.equal(one[0], one[1])
    assert not torch.equal(one, two)
