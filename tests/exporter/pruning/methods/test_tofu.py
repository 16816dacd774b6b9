"""ToFu against loops over tokens: which blocks drop, which fuse, and how long a fused token is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, plain_matching, plain_merge

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.methods.selection import Merge
from vitrim.exporter.pruning.reduce import reduce

tofu = get_method("tofu")


@settings(max_examples=30, deadline=None)
@given(shape=SIZES, mode=st.sampled_from(["drop", "fuse"]), data=st.data())
def test_tofu_equals_the_plain_implementation(shape: dict[str, int], mode: str, data: st.DataObject) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    reduction = data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    options = tofu.StageOptions.model_validate({"mode": mode})
    selection = tofu.select(evidence, tokens - reduction, options, tofu.Parameters())
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows, left = reduce(x, None, selection)
    assert left is None
    for image in range(2):
        stays, pairs = plain_matching(evidence.keys[image].numpy(), prefix, reduction)
        expected, _ = plain_merge(x[image].numpy(), [1.0] * tokens, stays, pairs if mode == "fuse" else [], True)
        np.testing.assert_allclose(rows[image].numpy(), expected, atol=1e-10)


def test_tofu_drops_in_the_first_half_and_fuses_in_the_second() -> None:
    modes = [tofu.merge_rule(tofu.StageOptions(), tofu.Parameters(), (block, 12)) for block in range(12)]
    assert modes == [None] * 7 + ["longest"] * 5


def test_the_block_of_the_evidence_decides_unless_the_row_does() -> None:
    def merge(index: int, **options: Any) -> Merge | None:
        evidence = make_evidence(1, 2, 12, 1, (index, 12))
        return tofu.select(evidence, 10, tofu.StageOptions(**options), tofu.Parameters()).merge

    assert merge(6) is None
    late, told = merge(7), merge(0, mode="fuse")
    assert late is not None
    assert told is not None
    assert (late.rule, told.rule) == ("longest", "longest")
    assert merge(11, mode="drop") is None


def test_more_than_one_matching_is_refused() -> None:
    tofu.check_stage(17, 9, 1, tofu.StageOptions(), tofu.Parameters(), "blocks[0]")
    with pytest.raises(InputError) as caught:
        tofu.check_stage(17, 8, 1, tofu.StageOptions(), tofu.Parameters(), "blocks[0]")
    assert str(caught.value) == (
        "blocks[0] removes 9 of 17 tokens, but one stage of tofu removes at most 8; keep at least 9"
    )
