"""What a pass decided, written down by block, and decisions that a pass follows."""

from __future__ import annotations

from typing import Any

import torch
from helpers import budget_for, small_vit

from vitrim.exporter.core.layout import PACKED
from vitrim.exporter.pruning.decisions import Decision, Replay, Trace
from vitrim.exporter.pruning.reference import drop_tokens
from vitrim.exporter.pruning.vit import PrunedViT


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


def test_replaying_own_decisions_changes_nothing_and_other_ones_do(vit: Any) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    pruned = PrunedViT(vit, budget_for(vit, {1: 9, 2: 5}))
    with torch.inference_mode():
        trace = pruned.trace(images)
        again = pruned.trace(images, replay=Replay(trace.kept))
        other = {1: torch.arange(9).expand(2, -1), 2: torch.arange(5).expand(2, -1)}
        moved = pruned.trace(images, replay=Replay(other))
    assert trace.logits is not None
    assert again.logits is not None
    assert moved.logits is not None
    torch.testing.assert_close(again.logits, trace.logits, atol=1e-5, rtol=1e-5)  # in another order of tokens
    assert torch.equal(moved.kept[2], other[2])
    assert (trace.logits - moved.logits).abs().max() > 1e-3


def test_a_decision_is_noted_under_its_block() -> None:
    trace, other = Trace(), Trace()
    kept, gap, merged = torch.tensor([[0, 2]]), torch.tensor([0.5]), torch.tensor([[PACKED]])
    trace.note(1, Decision(kept, None, gap))
    trace.note(3, Decision(kept + 1, merged, gap * 2))
    assert {block: ids.tolist() for block, ids in trace.kept.items()} == {1: [[0, 2]], 3: [[1, 3]]}
    assert {block: float(value) for block, value in trace.gap.items()} == {1: 0.5, 3: 1.0}
    assert {block: pairs.tolist() for block, pairs in trace.merged.items()} == {3: [[65536]]}
    assert (other.kept, other.merged, other.gap, other.tokens, other.logits) == ({}, {}, {}, {}, None)  # its own


def test_a_replay_without_merges_merges_nothing() -> None:
    """Of a method that merges, decisions that name no pairs drop what goes, as the plain forward says."""
    model = small_vit()
    budget = budget_for(model, {1: 12}, "tome")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    pruned = PrunedViT(model, budget)
    with torch.inference_mode():
        trace = pruned.trace(images)
        assert trace.logits is not None
        again = pruned.trace(images, Replay(trace.kept, trace.merged)).logits
        assert again is not None
        torch.testing.assert_close(again, trace.logits, atol=1e-5, rtol=1e-5)
        dropped = drop_tokens(model, budget, images, trace.kept)
    assert (dropped - trace.logits).abs().max() > 1e-3
