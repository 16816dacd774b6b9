"""Absorbing patches against loops over tokens; what is near to being decided otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, Pairs, pairs_of, plain_significance

from vitrim.exporter.pruning.methods.absorption import LEAST_WORTH, absorb, worth_of
from vitrim.exporter.pruning.methods.selection import MergeRule, Weighing
from vitrim.exporter.pruning.reduce import reduce


def with_tokens(evidence: Any, seed: int, width: int = 6) -> Any:
    shape = (2, evidence.keys.shape[2], width)
    return replace(
        evidence, tokens=torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )


def plain_absorption(x: np.ndarray, worth: dict[int, float], reduction: int, exponent: float) -> tuple[set[int], Pairs]:
    """[tokens, width] tokens -> patches that stay, and (source, target) positions, for one image."""

    def cosine(i: int, j: int) -> float:
        return float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))

    cost = {}
    for i in worth:
        better = [max(cosine(i, j), 0.0) for j in worth if worth[j] > worth[i]]
        cost[i] = (1 - max(better, default=0.0)) * worth[i] ** exponent
    gone = sorted(worth, key=lambda i: cost[i])[:reduction]
    stays = set(worth) - set(gone)
    return stays, [(i, max(stays, key=lambda j: cosine(i, j))) for i in gone]


@pytest.mark.parametrize("compares", [False, True])
@settings(max_examples=25, deadline=None)
@given(shape=SIZES, exponent=st.sampled_from([0.25, 0.75, 2.0]), data=st.data())
def test_it_equals_the_plain_implementation(
    compares: bool, shape: dict[str, int], exponent: float, data: st.DataObject
) -> None:
    evidence = replace(with_tokens(make_evidence(**shape), shape["seed"]), compares=compares)
    prefix, tokens = shape["prefix"], shape["patches"] + shape["prefix"]
    reduction = data.draw(st.integers(1, shape["patches"] - 1))
    selection = absorb(evidence, tokens - reduction, evidence.stream, exponent)
    assert selection.kept is not None
    assert evidence.attention is not None
    for image in range(2):
        attention, values = evidence.attention[image].numpy(), evidence.values[image].numpy()
        if prefix == 0:  # without a class token, what all tokens pay on average
            attention = np.broadcast_to(attention.mean(1, keepdims=True), attention.shape)
        worth = plain_significance(attention, values, prefix)
        stays, pairs = plain_absorption(evidence.stream[image].numpy(), worth, reduction, exponent)
        assert selection.kept[image, :prefix].tolist() == list(range(prefix))
        assert set(selection.kept[image, prefix:].tolist()) == stays
        assert sorted(pairs_of(selection, image)) == sorted(pairs)
    assert selection.gap is not None
    assert (selection.gap > 0).all()


@settings(max_examples=30, deadline=None)
@given(
    shape=SIZES,
    grown=st.booleans(),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    sized=st.booleans(),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    rule=st.sampled_from(["mean", "as_long"]),
    data=st.data(),
)
def test_merges_weigh_by_size_and_significance_and_hand_on_their_shares(
    shape: dict[str, int], grown: bool, weight: float, sized: bool, share: float, rule: MergeRule, data: st.DataObject
) -> None:
    evidence = with_tokens(make_evidence(**shape), shape["seed"])
    tokens = shape["patches"] + shape["prefix"]
    keep = tokens - data.draw(st.integers(1, shape["patches"] - 1))
    weighing = Weighing(worth_of(evidence), weight, sized, share)
    sizes = torch.randint(1, 5, (2, tokens), generator=torch.Generator().manual_seed(2)).double() if grown else None
    forms = [replace(evidence, compares=flag) for flag in (False, True)]
    selections = [absorb(form, keep, form.stream, 0.75, rule, weighing) for form in forms]
    (out, left), (moved, moved_left) = (reduce(evidence.stream, sizes, selection) for selection in selections)
    torch.testing.assert_close(moved, out, atol=1e-10, rtol=1e-10)
    assert left is not None
    torch.testing.assert_close(moved_left, left)
    for image in range(2):
        size = [1.0] * tokens if sizes is None else sizes[image].tolist()
        for place, token in enumerate(selections[0].kept[image].tolist()):
            group = [token] + [source for source, target in pairs_of(selections[0], image) if target == token]
            worth = evidence.significance[image].tolist()
            mass = [(size[i] if sized else 1.0) * worth[i] ** weight for i in group]
            parts = [evidence.stream[image, i] for i in group]
            mean = sum(m * part for m, part in zip(mass, parts, strict=True)) / sum(mass)
            if rule == "as_long":
                mean *= parts[0].norm() / mean.norm()
            torch.testing.assert_close(out[image, place], mean, atol=1e-9, rtol=1e-9)
            handed = sum(size[i] * (worth[i] / worth[token]) ** share for i in group)
            assert float(left[image, place]) == pytest.approx(handed)


def few(significance: list[float], tokens: list[list[float]]) -> Any:
    """Evidence of one image with one head, whose values are of length 1, and a class token in front."""
    count = len(significance) + 1
    row = torch.tensor([0.5, *significance], dtype=torch.float64)
    keys = torch.zeros(1, 1, count, 2, dtype=torch.float64)
    values = torch.nn.functional.pad(torch.ones(1, 1, count, 1, dtype=torch.float64), (0, 1))
    evidence = make_evidence(0, 1, count - 1, 1)
    x = torch.tensor([[[9.0, 9.0], *tokens]], dtype=torch.float64)
    return replace(evidence, attention=row.expand(1, 1, count, count), keys=keys, values=values, tokens=x)


ALIKE = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.3, 1.0]]


@pytest.mark.parametrize("compares", [False, True])
def test_the_less_significant_of_two_that_are_alike_goes(compares: bool) -> None:
    for significance, gone in (([0.1, 0.2, 0.3, 0.4], (1, 2)), ([0.2, 0.1, 0.3, 0.4], (2, 1))):
        evidence = replace(few(significance, ALIKE), compares=compares)
        selection = absorb(evidence, 4, evidence.stream, 0.75)
        assert pairs_of(selection, 0) == [gone]


def test_a_gap_tells_every_way_to_decide_otherwise() -> None:
    evidence = few([0.1, 0.2, 0.3, 0.4], ALIKE)
    plain = absorb(evidence, 4, evidence.stream, 0.0).gap
    assert plain is not None
    near_cut = few([0.1, 0.2, 0.3, 0.4], [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1 + 1e-9, 1.0]])
    near_target = few([0.1, 0.2, 0.3, 0.4], [[1.0, 0.0], [1.0, 0.1], [1.0, -0.1 - 1e-9], [0.3, 1.0]])
    near_order = few([0.2, 0.2 + 1e-9, 0.3, 0.4], ALIKE)
    for near in (near_cut, near_target, near_order):
        gap = absorb(near, 4, near.stream, 0.0).gap
        assert gap is not None
        assert 0 < float(gap) < 1e-6 < float(plain)
    far = few([0.1, 0.2, 0.3, 0.3 + 1e-9], [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.2]])
    gap = absorb(far, 4, far.stream, 0.0).gap  # neither of those two would go for the other
    assert gap is not None
    assert float(gap) > 1e-2


def test_tokens_without_significance_or_length_give_numbers() -> None:
    evidence = few([0.0, 0.0, 0.0, 0.0], [[0.0, 0.0]] * 4)
    weighing = Weighing(worth_of(evidence), 1.0, False, 0.3)
    assert weighing.worth is not None
    assert float(weighing.worth.min()) == pytest.approx(LEAST_WORTH)
    for compares in (False, True):
        form = replace(evidence, compares=compares)
        out, left = reduce(form.stream, None, absorb(form, 3, form.stream, 0.75, "as_long", weighing))
        assert left is not None
        assert bool(out.isfinite().all())
        assert float(left.sum()) == 5.0
