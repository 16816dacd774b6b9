"""Matching and merging by comparing all pairs: the same decisions and tokens as by sorting and gathering."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, pairs_of
from torch import Tensor

from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction, match
from vitrim.exporter.pruning.methods.moves import LEAST, left_out, move_matched, nearest
from vitrim.exporter.pruning.reduce import reduce

# Method, options of the stage, parameters.
STAGES = [
    ("tome", {}, {}),
    ("tofu", {"mode": "drop"}, {}),
    ("tofu", {"mode": "fuse"}, {}),
    ("frugal", {}, {}),
    ("frugal", {}, {"pairs": "halves", "features": "keys", "weight": 0.0}),
    ("frugal", {}, {"pairs": "halves"}),
    ("ppt", {"policy": "pool"}, {}),
    ("ppt", {}, {"threshold": 0.0}),
    ("ppt", {}, {"threshold": 0.002}),
    ("ppt", {}, {"threshold": 1e9}),
]


def merged(selection: Any, image: int) -> list[tuple[int, int]]:
    return sorted(pairs_of(selection, image)) if selection.merge is not None else []


def reduced(selection: Any, tokens: int, sized: bool) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sizes = torch.randint(1, 5, (2, tokens), generator=torch.Generator().manual_seed(2)).double()
    return reduce(x, sizes if sized else None, selection)


@pytest.mark.parametrize(("name", "options", "parameters"), STAGES)
@settings(max_examples=12, deadline=None)
@given(shape=SIZES, sized=st.booleans(), known=st.booleans(), data=st.data())
def test_a_stage_that_compares_decides_and_merges_as_one_that_sorts(
    name: str,
    options: dict[str, Any],
    parameters: dict[str, Any],
    shape: Any,
    sized: bool,
    known: bool,
    data: st.DataObject,
) -> None:
    method, evidence = get_method(name), make_evidence(**shape)
    if known and evidence.class_token:
        logits = evidence.matrix[:, :, 0].log() + 3.0  # softmax takes any shift
        squares = evidence.values.square().sum((1, 3))
        key_squares = evidence.keys.mean(1).square().sum(-1)
        evidence = replace(evidence, squares=squares, logits=logits, key_squares=key_squares)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    drawn = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    evidence = replace(evidence, tokens=drawn)
    keep = tokens - data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    row, settled = method.StageOptions(**options), method.Parameters(**parameters)
    sorts, compares = (method.select(replace(evidence, compares=flag), keep, row, settled) for flag in (False, True))
    assert sorts.kept is not None
    assert compares.kept is not None
    assert compares.kept.tolist() == sorts.kept.tolist()
    assert (compares.place is None) == (compares.merge is None)
    assert torch.equal(compares.gap, sorts.gap)
    for image in range(2):
        assert merged(compares, image) == merged(sorts, image)
    for got, expected in zip(*(reduced(each, tokens, sized) for each in (compares, sorts)), strict=True):
        assert (got is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_of_equal_matches_and_values_the_first_counts() -> None:
    keys = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    found = nearest(keys, 0)
    value, where = found.values(), found.where
    assert found.attended is None
    assert value.tolist() == [[1.0, pytest.approx(LEAST), 1.0, pytest.approx(LEAST), 0.0, pytest.approx(LEAST)]]
    assert where[0, [0, 2, 4]].tolist() == [1.0, 1.0, 1.0]
    moves = move_matched(torch.tensor([[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]]), where, 6, 0, 1)
    assert moves.place.tolist() == [[2.0, 2.0, 0.0, 3.0, 1.0, 4.0]]  # token 0 goes where token 1 is
    assert moves.stays.tolist() == [[False, True, True, True, True, True]]


@pytest.mark.parametrize("patches", [8, 9])
@pytest.mark.parametrize("shift", [-300.0, 0.0, 300.0])
def test_logits_beside_the_similarities_give_the_softmax_without_a_token_left_out(patches: int, shift: float) -> None:
    evidence = make_evidence(1, 3, patches, 1)
    logits = evidence.matrix[:, :, 0].log() + shift
    keys = evidence.keys.mean(1)
    found, alone = nearest(keys, 1, keys.square().sum(-1), logits), nearest(keys, 1)
    front = left_out(patches + 1, 1)
    assert found.attended is not None
    torch.testing.assert_close(found.attended, evidence.attended[:, front:])
    torch.testing.assert_close(found.values(), alone.values())
    assert torch.equal(found.where, alone.where)


def test_keys_of_zeros_merge_without_a_division_by_0() -> None:
    evidence = replace(make_evidence(1, 2, 7, 1), compares=True)
    selection = match(replace(evidence, keys=torch.zeros_like(evidence.keys)), 6, "mean")
    assert selection.kept is not None
    assert selection.kept.tolist() == [[0, 6, 1, 3, 5, 7]] * 2
    assert [pairs_of(selection, image) for image in range(2)] == [[(2, 1), (4, 1)]] * 2


def test_matrices_leave_a_prefix_token_out_where_that_makes_them_even() -> None:
    assert [left_out(tokens, prefix) for tokens, prefix in ((197, 1), (198, 2), (199, 3), (197, 0))] == [1, 0, 1, 0]
    evidence = replace(make_evidence(1, 2, 8, 1), compares=True)
    selection = match(evidence, 6, "mean")
    assert selection.place is not None
    assert selection.place.shape == (2, 8)
    out, sizes = reduced(selection, 9, sized=True)
    x, given_sizes = reduced(replace(selection, place=None), 9, sized=True)
    torch.testing.assert_close(out, x)
    torch.testing.assert_close(sizes, given_sizes)
