"""ToMe against loops over tokens, what merging must conserve, and how much one stage can merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, pairs_of, plain_matching, plain_merge

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.reduce import reduce

tome = get_method("tome")


@settings(max_examples=40, deadline=None)
@given(shape=SIZES, data=st.data())
def test_tome_equals_the_plain_implementation(shape: dict[str, int], data: st.DataObject) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    reduction = data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    selection = tome.select(evidence, tokens - reduction, tome.StageOptions(), tome.Parameters())
    x = torch.randn(2, tokens, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    size = torch.randint(1, 5, (2, tokens), generator=torch.Generator().manual_seed(2)).double()
    rows, left = reduce(x, size, selection)
    assert left is not None
    for image in range(2):
        stays, pairs = plain_matching(evidence.keys[image].numpy(), prefix, reduction)
        assert selection.kept is not None
        assert selection.kept[image].tolist() == stays
        assert pairs_of(selection, image) == pairs
        expected, sums = plain_merge(x[image].numpy(), size[image].tolist(), stays, pairs)
        np.testing.assert_allclose(rows[image].numpy(), expected, atol=1e-10)
        np.testing.assert_allclose(left[image].numpy(), sums, atol=1e-10)
        assert sum(sums) == pytest.approx(float(size[image].sum()))  # nothing is lost


def test_the_distillation_token_stays_at_place_1() -> None:
    selection = tome.select(make_evidence(1, 2, 12, 2), 10, tome.StageOptions(), tome.Parameters())
    assert selection.kept is not None
    assert selection.kept[:, :2].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("tokens", "prefix", "most"), [(197, 1, 98), (196, 0, 98), (198, 2, 98), (21, 5, 8)])
def test_a_stage_beyond_one_matching_is_refused(tokens: int, prefix: int, most: int) -> None:
    assert largest_reduction(tokens, prefix) == most
    tome.check_stage(tokens, tokens - most, prefix, tome.StageOptions(), tome.Parameters(), "blocks[2]")
    with pytest.raises(InputError, match=rf"blocks\[2\] removes {most + 1} of {tokens} tokens.*at most {most}"):
        tome.check_stage(tokens, tokens - most - 1, prefix, tome.StageOptions(), tome.Parameters(), "blocks[2]")


def test_presets_remove_as_many_tokens_in_every_block_as_their_name_says() -> None:
    for preset in tome.presets:
        count = int(preset.name.removeprefix("tome-"))
        assert preset.stages == tuple(StagePlan(block, remove=count) for block in range(12))
    assert [preset.name for preset in tome.presets] == ["tome-8", "tome-11", "tome-13", "tome-16"]


def test_sizes_count_in_attention_unless_the_parameter_says_otherwise() -> None:
    assert tome.proportional(tome.Parameters())
    assert not tome.proportional(tome.Parameters(proportional=False))
    assert tome.merge_rule(tome.StageOptions(), tome.Parameters(), (0, 12)) == "mean"
    assert tome.placement.blocks(3) == (0, 1, 2)
