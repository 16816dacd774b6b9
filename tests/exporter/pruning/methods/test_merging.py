"""ToMe, PPT, ToFu and EViT against second implementations with loops, and what merging must conserve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import budget_for, make_evidence, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.decisions import Replay
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.base import Selection
from vitrim.exporter.pruning.methods.matching import largest_reduction
from vitrim.exporter.pruning.methods.ppt import significance
from vitrim.exporter.pruning.reduce import PACKED, reduce
from vitrim.exporter.pruning.reference import drop_tokens
from vitrim.exporter.pruning.vit import PrunedViT

sys.path.insert(0, str(Path(__file__).parent))
from plain_merging import plain_fused, plain_matching, plain_merge, plain_ppt, plain_significance

evit, frugal, ppt, tofu, tome = map(get_method, ("evit", "frugal", "ppt", "tofu", "tome"))


def pairs_of(selection: Selection, image: int) -> list[tuple[int, int]]:
    """(source, target) positions in the sequence before."""
    assert selection.merge is not None
    assert selection.kept is not None
    if selection.merge.active is not None and not selection.merge.active[image]:
        return []
    kept = selection.kept[image].tolist()
    targets = [kept[target] for target in selection.merge.target[image].tolist()]
    return list(zip(selection.merge.source[image].tolist(), targets, strict=True))


sizes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "heads": st.integers(1, 4),
        "patches": st.integers(4, 15),
        "prefix": st.integers(0, 3),
    }
)


@settings(max_examples=40, deadline=None)
@given(shape=sizes, data=st.data())
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


@settings(max_examples=40, deadline=None)
@given(
    shape=sizes.filter(lambda s: s["prefix"] > 0), threshold=st.sampled_from([0.0, 0.002, 0.01, 1e9]), data=st.data()
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


@settings(max_examples=30, deadline=None)
@given(shape=sizes.filter(lambda s: s["prefix"] > 0), exponent=st.sampled_from([0.0, 0.75, 2.0]), data=st.data())
def test_frugal_merging_equals_the_plain_implementation(
    shape: dict[str, int], exponent: float, data: st.DataObject
) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    reduction = data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    parameters = frugal.Parameters(exponent=exponent)
    selection = frugal.select(evidence, tokens - reduction, frugal.StageOptions(), parameters)
    assert selection.kept is not None
    assert evidence.attention is not None
    for image in range(2):
        shares = plain_significance(evidence.attention[image].numpy(), evidence.values[image].numpy(), prefix)
        worth = {patch: share**exponent for patch, share in shares.items()}
        stays, pairs = plain_matching(evidence.keys[image].numpy(), prefix, reduction, worth)
        assert selection.kept[image].tolist() == stays
        assert pairs_of(selection, image) == pairs


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
@given(shape=sizes, mode=st.sampled_from(["drop", "fuse"]), data=st.data())
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


@settings(max_examples=30, deadline=None)
@given(shape=sizes.filter(lambda s: s["prefix"] > 0), data=st.data())
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


CASES = [
    ("tome", {}, {}),
    ("tome", {"proportional": False}, {}),
    ("tome", {"place": "after_block"}, {}),
    ("tofu", {}, {}),
    ("ppt", {"threshold": 0.004}, {}),
    ("ppt", {"threshold": 1e9}, {}),
    ("ppt", {"policy": "prune"}, {}),
    ("evit", {"fuse": True}, {}),
    ("frugal", {}, {}),
]
MODELS = [
    {},
    {"class_token": False, "global_pool": "avg"},
    {"class_token": False, "global_pool": "avg", "fc_norm": False},
    {"reg_tokens": 2, "init_values": 0.1},
    {"qk_norm": True},
]


@pytest.mark.parametrize("args", MODELS, ids=str)
@pytest.mark.parametrize(("method", "parameters", "options"), CASES, ids=str)
def test_the_static_form_equals_tokens_merged_one_by_one(
    method: str, parameters: dict[str, Any], options: dict[str, Any], args: dict[str, Any]
) -> None:
    model = small_vit(**args)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    budget = budget_for(model, {0: 14, 2: 9, 3: 6}, method, parameters, **options)
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    with torch.inference_mode():
        trace = pruned.trace(images)
        again = pruned.trace(images, Replay(trace.kept, trace.merged))
    expected = drop_tokens(model, budget, images, trace.kept, trace.merged)
    assert trace.logits is not None
    assert again.logits is not None
    assert [ids.shape[1] for ids in trace.kept.values()] == [14, 9, 6]
    torch.testing.assert_close(trace.logits, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(again.logits, trace.logits, atol=2e-6, rtol=1e-6)
    assert all(torch.equal(again.kept[block], ids) for block, ids in trace.kept.items())
    names = [name for name in pruned.output_names() if name.startswith("merged")]
    assert sorted(trace.merged) == [int(name[7:]) for name in names]


def test_merged_pairs_name_tokens_of_the_whole_sequence() -> None:
    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {0: 12, 2: 9}, "tome"))
    with torch.inference_mode():
        trace = pruned.trace(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(8)))
    for image in range(3):
        alive = set(range(17))
        for block in (0, 2):
            pairs = [divmod(pair, PACKED) for pair in trace.merged[block][image].tolist()]
            assert {source for source, _ in pairs} == alive - set(trace.kept[block][image].tolist())
            alive -= {source for source, _ in pairs}
            assert {target for _, target in pairs} <= alive
