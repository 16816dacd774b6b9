from __future__ import annotations

import numpy as np
import pytest
import report_bundles
import torch
from helpers import budget_for, small_vit
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.pruning.budget import Budget, parse_budget
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.report.patches import DROPPED, fates_of, grid_of, survival


def plan() -> Budget:
    return parse_budget(report_bundles.budget())


def test_patches_are_followed_through_merges_and_drops() -> None:
    first, last = fates_of(plan(), report_bundles.golden())
    assert (first.block, last.block) == (1, 3)
    assert first.groups[0].tolist() == [1, 1, 1, 1, 1, *range(6, 17)]
    assert last.groups[0].tolist() == [1, 1, 1, 1, 1, *range(6, 13), *[DROPPED] * 4]
    assert survival(first).tolist() == [1.0, 0, 0, 0, 0, *[1.0] * 11]
    assert survival(last)[12:].tolist() == [0.0] * 4


def test_a_merge_into_what_is_merged_itself_and_a_fused_token() -> None:
    held = report_bundles.golden()
    one = {key: value[:1] for key, value in held.items()}
    # 2 into 3, 3 into 1; 4 and 5 into the new token 17; -1: nothing
    one["merged_1"] = np.array([[65536 * 2 + 3, 65536 * 3 + 1, 65536 * 4 + 17, 65536 * 5 + 17, -1]])
    one["kept_1"] = np.array([[0, 1, *range(7, 17), 17]])
    groups = fates_of(plan(), one)[0].groups[0]
    assert groups[:6].tolist() == [1, 1, 1, 17, 17, DROPPED]


@pytest.mark.parametrize(
    ("method", "parameters", "drops"),
    [("evit", {}, True), ("evit", {"fuse": True}, False), ("tome", {}, False), ("frugal", {}, False)],
)
def test_real_methods_leave_as_many_groups_as_tokens(method: str, parameters: dict[str, bool], drops: bool) -> None:
    """Also where one token is fused from all that leaves."""
    model = small_vit()
    budget = budget_for(model, {1: 10, 2: 7}, method, parameters)
    images = torch.rand(3, *describe(model).image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trace = PrunedViT(model, budget).trace(images)
    told = {f"kept_{block}": found.numpy() for block, found in trace.kept.items()}
    told |= {f"merged_{block}": found.numpy() for block, found in trace.merged.items()}
    for fate, tokens in zip(fates_of(budget, told), (9, 6), strict=True):
        for row in fate.groups:
            assert len({*row.tolist()} - {DROPPED, 0}) == tokens
            assert (DROPPED in row) is drops


def test_without_decisions_there_is_nothing_to_follow() -> None:
    held = report_bundles.golden()
    assert fates_of(None, held) == []
    del held["kept_3"]
    assert [fate.block for fate in fates_of(plan(), held)] == [1]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 32))
def test_any_grid_of_square_patches_is_found(rows: int, columns: int, patch: int) -> None:
    assert grid_of(rows * columns, rows * patch, columns * patch) == (rows, columns)


@pytest.mark.parametrize(("patches", "height", "width"), [(15, 8, 8), (16, 8, 9), (1, 1, 100)])
def test_what_is_no_grid_is_none(patches: int, height: int, width: int) -> None:
    assert grid_of(patches, height, width) is None
