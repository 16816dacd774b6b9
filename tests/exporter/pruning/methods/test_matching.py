"""Bipartite soft matching: every merged patch goes to its best match, and the counts that fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, pairs_of, plain_matching

from vitrim.exporter.pruning.methods.matching import largest_reduction, match_tokens
from vitrim.exporter.pruning.methods.selection import Selection


def test_largest_reduction_is_group_a_as_long_as_group_b_has_a_patch() -> None:
    for prefix in range(4):
        for patches in range(1, 40):
            tokens = prefix + patches
            group_a = sum(place % 2 == 0 for place in range(prefix, tokens))
            most = group_a if patches > group_a else group_a - 1  # no group B: the only patch has no one to go to
            assert largest_reduction(tokens, prefix) == most


@settings(max_examples=60, deadline=None)
@given(shape=SIZES, weighed=st.booleans(), data=st.data())
def test_every_merged_patch_goes_to_its_nearest_one(shape: dict[str, int], weighed: bool, data: st.DataObject) -> None:
    prefix, patches = shape["prefix"], shape["patches"]
    tokens = prefix + patches
    reduction = data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    generator = torch.Generator().manual_seed(shape["seed"])
    keys = torch.randn(2, tokens, 5, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, patches, generator=generator, dtype=torch.float64) if weighed else None
    kept, merge, gap = match_tokens(keys, prefix, reduction, weights)
    selection = Selection(kept, gap, merge)
    for image in range(2):
        rows = keys[image].numpy()
        worth = None if weights is None else {prefix + place: float(w) for place, w in enumerate(weights[image])}
        stays, pairs = plain_matching(rows[None], prefix, reduction, worth)
        assert kept[image].tolist() == stays
        assert pairs_of(selection, image) == pairs
        gone = {source for source, _ in pairs}
        assert gone | set(kept[image].tolist()) == set(range(tokens))
        assert all(source % 2 == 0 and target % 2 == 1 and target >= prefix for source, target in pairs)


def test_a_cut_between_twins_is_a_gap_of_0() -> None:
    """Four patches: 0 and 2 are as near to 1 as to each other's; cutting between them is a tie, and so is 0's match."""
    keys = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, -1.0]]], dtype=torch.float64)
    _, _, cut = match_tokens(keys, 0, 1)
    assert float(cut[0]) == 0.0
    apart = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 1.0]]], dtype=torch.float64)
    kept, merge, gap = match_tokens(apart, 0, 1)
    assert (kept.tolist(), merge.source.tolist()) == ([[2, 1, 3]], [[0]])
    best, other = 1 / np.sqrt(1.01), 1 / np.sqrt(2)  # of patch 0 and of patch 2
    second = -1 / np.sqrt(2)  # patch 0 beside patch 3
    assert float(gap[0]) == pytest.approx(min((best - other) / best, (best - second) / best))


def test_a_key_of_zeros_matches_without_a_division_by_0() -> None:
    keys = torch.zeros(1, 6, 4)
    kept, _, gap = match_tokens(keys, 0, 2)
    assert torch.isfinite(gap).all()
    assert kept.shape == (1, 4)


def test_a_match_that_was_nearly_another_is_a_small_gap() -> None:
    keys = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, -0.11]]], dtype=torch.float64)
    _, merge, gap = match_tokens(keys, 0, 1)
    first, second = 1 / np.sqrt(1 + 0.1**2), 1 / np.sqrt(1 + 0.11**2)  # patch 0 beside patches 1 and 3
    assert (merge.source.tolist(), merge.target.tolist()) == ([[0]], [[1]])
    assert float(gap[0]) == pytest.approx((first - second) / first)
