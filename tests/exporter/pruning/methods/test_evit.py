"""EViT against loops over tokens: which patches stay, and the token that the rest is fused into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, plain_fused

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.reduce import reduce

evit = get_method("evit")


@settings(max_examples=30, deadline=None)
@given(shape=SIZES.filter(lambda s: s["prefix"] > 0), data=st.data())
def test_evit_s_fused_token_equals_the_plain_sum(shape: dict[str, int], data: st.DataObject) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    keep = prefix + data.draw(st.integers(1, shape["patches"] - 1)) + 1
    selection = evit.select(evidence, keep, evit.StageOptions(), evit.Parameters(fuse=True))
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows, _ = reduce(x, None, selection)
    assert rows.shape == (2, keep, 6)
    assert selection.kept is not None
    assert evidence.attention is not None
    for image in range(2):
        expected = plain_fused(x[image].numpy(), evidence.attention[image].numpy(), selection.kept[image].tolist())
        np.testing.assert_allclose(rows[image, -1].numpy(), expected, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(shape=SIZES, fuse=st.booleans(), data=st.data())
def test_the_patches_with_the_largest_class_attention_stay(
    shape: dict[str, int], fuse: bool, data: st.DataObject
) -> None:
    evidence, prefix = make_evidence(**shape), shape["prefix"]
    patches = data.draw(st.integers(1, shape["patches"] - 1))
    keep = prefix + patches + int(fuse)
    selection = evit.select(evidence, keep, evit.StageOptions(), evit.Parameters(fuse=fuse))
    assert selection.kept is not None
    assert selection.gap is not None
    for image in range(2):
        attention = evidence.matrix[image].numpy()
        heads, tokens, _ = attention.shape
        payers = [0] if prefix else range(tokens)  # the class token, or all where there is none
        paid = {
            j: sum(attention[h, i, j] for h in range(heads) for i in payers) / (heads * len(payers))
            for j in range(prefix, tokens)
        }
        ranked = sorted(paid, key=lambda j: -paid[j])
        assert selection.kept[image].tolist() == [*range(prefix), *ranked[:patches]]  # as they rank
        last, first = paid[ranked[patches - 1]], paid[ranked[patches]]
        assert float(selection.gap[image]) == pytest.approx((last - first) / last, rel=1e-6)
        if fuse:
            assert selection.fused is not None
            gone = selection.fused[image].tolist()
            expected = [paid[j] if j in ranked[patches:] else 0.0 for j in range(tokens)]
            np.testing.assert_allclose(gone, expected, atol=1e-12)
    assert (selection.fused is None) is not fuse


def test_a_fused_token_needs_room() -> None:
    evit.check_stage(17, 3, 1, evit.StageOptions(), evit.Parameters(fuse=True), "blocks[3]")
    evit.check_stage(17, 2, 1, evit.StageOptions(), evit.Parameters(), "blocks[3]")
    with pytest.raises(InputError) as caught:
        evit.check_stage(17, 2, 1, evit.StageOptions(), evit.Parameters(fuse=True), "blocks[3]")
    assert str(caught.value) == "blocks[3] keeps 1 patch; with parameters.fuse keep at least 2"


def test_presets_keep_a_share_at_blocks_3_6_and_9_with_and_without_a_fused_token() -> None:
    named = {preset.name: preset for preset in evit.presets}
    rates = (0.9, 0.8, 0.7, 0.6, 0.5)
    assert list(named) == [f"evit-{rate}" for rate in rates] + [f"evit-fused-{rate}" for rate in rates]
    for rate in rates:
        stages = tuple(StagePlan(block, keep=rate) for block in (3, 6, 9))
        plain, fused = named[f"evit-{rate}"], named[f"evit-fused-{rate}"]
        assert (plain.stages, fused.stages) == (stages, stages)
        assert (dict(plain.parameters), dict(fused.parameters)) == ({"place": "before_mlp"}, {"fuse": True})
    assert evit.rounds_up
