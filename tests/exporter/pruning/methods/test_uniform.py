"""The control that keeps evenly spaced patches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import budget_for, make_evidence

from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.vit import PrunedViT

uniform = get_method("uniform")


def kept(patches: int, keep: int, prefix: int) -> list[int]:
    evidence = make_evidence(0, 1, patches, prefix)
    found = uniform.select(evidence, keep, uniform.StageOptions(), uniform.Parameters()).kept
    assert found is not None
    assert found.tolist() == [found[0].tolist()] * 2  # every image alike
    return found[0].tolist()


def test_patches_lie_in_the_middle_of_equal_parts() -> None:
    assert kept(16, 4, 0) == [2, 6, 10, 14]
    assert kept(16, 1, 0) == [8]
    assert kept(10, 5, 2) == [0, 1, 3, 7, 10]  # of 10 patches: 1.67, 5, 8.33


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("patches", [1, 2, 7, 16, 49])
def test_every_count_gives_as_many_patches_each_once_and_as_evenly_as_can_be(patches: int, prefix: int) -> None:
    for count in range(1, patches + 1):
        found = kept(patches, prefix + count, prefix)
        assert found[:prefix] == list(range(prefix))
        chosen = [place - prefix for place in found[prefix:]]
        assert chosen == sorted(set(chosen))
        assert len(chosen) == count
        assert chosen[0] >= 0
        assert chosen[-1] < patches
        steps = {later - sooner for sooner, later in itertools.pairwise(chosen)}
        assert not steps or max(steps) - min(steps) <= 1


def test_the_model_keeps_them(vit: Any) -> None:
    with torch.inference_mode():
        even = PrunedViT(vit, budget_for(vit, {1: 5}, "uniform")).trace(torch.randn(2, 3, 64, 64)).kept[1]
    assert even.tolist() == [[0, 3, 7, 11, 15]] * 2
