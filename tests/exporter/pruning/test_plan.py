"""Stages of a plan before their tokens are counted."""

from __future__ import annotations

import pytest

from vitrim.exporter.pruning.plan import StagePlan


def test_a_stage_of_a_plan_says_its_size_in_one_way() -> None:
    with pytest.raises(ValueError, match="the stage at block 3 says patches and remove; give one of them"):
        StagePlan(3, patches=10, remove=4)
    assert StagePlan(3, keep=0.5).patches is None


def test_stages_can_be_told_apart_whatever_their_options() -> None:
    assert len({StagePlan(3, 10, options={"a": 1}), StagePlan(3, 10, options={"a": 2})}) == 2
