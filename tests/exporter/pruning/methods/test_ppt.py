"""PPT against loops over tokens: significance, the variance that decides, and both policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, pairs_of, plain_merge, plain_ppt, plain_significance

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.methods.moves import LEAST
from vitrim.exporter.pruning.methods.ppt import ranks_and_sums, share_variance, significance, sum_variance
from vitrim.exporter.pruning.methods.ranking import count_ahead
from vitrim.exporter.pruning.reduce import reduce

ppt = get_method("ppt")


@settings(max_examples=40, deadline=None)
@given(
    shape=SIZES.filter(lambda s: s["prefix"] > 0), threshold=st.sampled_from([0.0, 0.002, 0.01, 1e9]), data=st.data()
)
def test_ppt_equals_the_plain_implementation(shape: dict[str, int], threshold: float, data: st.DataObject) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    keep = tokens - data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    selection = ppt.select(evidence, keep, ppt.StageOptions(), ppt.Parameters(threshold=threshold))
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    size = torch.randint(1, 5, (2, tokens), generator=torch.Generator().manual_seed(2)).double()
    rows, left = reduce(x, size, selection)
    assert left is not None
    assert selection.kept is not None
    assert evidence.attention is not None
    for image in range(2):
        parts = [part[image].numpy() for part in (evidence.attention, evidence.keys, evidence.values)]
        stays, pairs = plain_ppt(*parts, prefix, keep, threshold)
        assert selection.kept[image].tolist() == stays
        assert pairs_of(selection, image) == pairs
        expected, sums = plain_merge(x[image].numpy(), size[image].tolist(), stays, pairs)
        np.testing.assert_allclose(rows[image].numpy(), expected, atol=1e-10)
        np.testing.assert_allclose(left[image].numpy(), sums, atol=1e-10)


def test_both_policies_meet_in_one_batch() -> None:
    evidence = make_evidence(3, 3, 14, 1)
    shares = significance(evidence)
    threshold = float(shares.var(1).mean())
    parameters = ppt.Parameters(threshold=threshold)
    mixed = ppt.select(evidence, 10, ppt.StageOptions(), parameters)
    assert mixed.merge is not None
    assert mixed.merge.active is not None
    assert sorted(mixed.merge.active.tolist()) == [False, True]
    pools = int(mixed.merge.active.int().argmax())
    always = {
        policy: ppt.select(evidence, 10, ppt.StageOptions(policy=policy), parameters) for policy in ("pool", "prune")
    }
    assert mixed.kept is not None
    for image, policy in ((pools, "pool"), (1 - pools, "prune")):
        fixed = always[policy].kept
        assert fixed is not None
        assert mixed.kept[image].tolist() == fixed[image].tolist()
    assert always["prune"].merge is None


@settings(max_examples=30, deadline=None)
@given(shape=SIZES)
def test_significance_is_a_share_of_attention_times_value_length(shape: dict[str, int]) -> None:
    evidence = make_evidence(**shape)
    found = significance(evidence)
    prefix, patches = shape["prefix"], shape["patches"]
    for image in range(2):
        attention, values = evidence.matrix[image].numpy(), evidence.values[image].numpy()
        if prefix:
            expected = list(plain_significance(attention, values, prefix).values())
        else:  # without a class token, what all tokens pay on average
            raw = []
            for j in range(patches):
                paid = sum(attention[h, i, j] for h in range(len(attention)) for i in range(patches)) / patches
                raw.append(paid * np.sqrt(sum(float(row @ row) for row in values[:, j])))
            expected = [value / sum(raw) for value in raw]
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-10)
        mean = sum(expected) / patches
        variance = sum((share - mean) ** 2 for share in expected) / (patches - 1)
        assert float(share_variance(found)[image]) == pytest.approx(variance, rel=1e-9)
    raw = torch.cat([torch.full_like(found[:, :1], LEAST), 3 * found], dim=1)
    ahead, rank, total, squares = ranks_and_sums(-raw, raw)
    assert torch.equal(ahead, count_ahead(-raw))
    assert torch.equal(rank, count_ahead(raw))
    torch.testing.assert_close(sum_variance(total, squares, patches), share_variance(found), rtol=1e-9, atol=0)
    assert torch.equal(ppt.score(evidence, ppt.Parameters()).importance, found)
    assert torch.equal(ppt.statistic(evidence, ppt.Parameters()), share_variance(found))


def test_a_row_s_own_threshold_and_policy_come_before_the_parameters() -> None:
    evidence = make_evidence(3, 3, 14, 1)

    def pools(whole: float, **options: Any) -> list[bool]:
        parameters = ppt.Parameters(threshold=whole)
        merge = ppt.select(evidence, 10, ppt.StageOptions(**options), parameters).merge
        assert merge is not None
        assert merge.active is not None
        return merge.active.tolist()

    assert pools(1e9) == [True, True]
    assert pools(0.0) == [False, False]
    assert pools(0.0, threshold=1e9) == [True, True]
    assert pools(1e9, threshold=0.0) == [False, False]  # 0 is a threshold, not "none"
    fixed = ppt.select(evidence, 10, ppt.StageOptions(policy="pool"), ppt.Parameters(policy="prune")).merge
    assert fixed is not None
    assert fixed.active is None
    assert ppt.merge_rule(ppt.StageOptions(policy="pool"), ppt.Parameters(policy="prune"), (0, 12)) == "mean"
    assert ppt.merge_rule(ppt.StageOptions(), ppt.Parameters(policy="prune"), (0, 12)) is None


def test_the_gap_tells_how_near_the_variance_was_to_the_threshold() -> None:
    evidence = make_evidence(3, 3, 14, 1)
    variance = share_variance(significance(evidence))
    near = ppt.Parameters(threshold=float(variance[0]) * (1 + 1e-7))
    gap = ppt.select(evidence, 10, ppt.StageOptions(), near).gap
    assert gap is not None
    assert float(gap[0]) == pytest.approx(1e-7, rel=1e-3)
    assert float(gap[1]) > 1e-5


def test_a_stage_without_its_calibrated_threshold_is_refused() -> None:
    wanted = ppt.Parameters(quantile=0.5)
    ppt.check_stage(17, 12, 1, ppt.StageOptions(threshold=1e-4), wanted, "blocks[3]")
    with pytest.raises(InputError) as caught:
        ppt.check_stage(17, 12, 1, ppt.StageOptions(), wanted, "blocks[3]")
    assert str(caught.value) == (
        "blocks[3] has no threshold, but parameters.quantile is set: `vitrim calibrate` writes them"
    )
    with pytest.raises(InputError, match=r"blocks\[3\] removes 9 of 17 tokens, but one stage of ppt removes at most 8"):
        ppt.check_stage(17, 8, 1, ppt.StageOptions(threshold=1e-4), wanted, "blocks[3]")
