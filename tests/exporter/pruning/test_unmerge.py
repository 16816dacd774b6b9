"""The way back onto the grid: every patch gets a token that lives, the one that it went into or the most alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import budget_for, small_vit
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.layout import PACKED
from vitrim.exporter.pruning.budget import PLACES
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.methods.selection import Merge, Selection
from vitrim.exporter.pruning.unmerge import way
from vitrim.exporter.pruning.vit import PrunedViT

TOKENS, PREFIX = 17, 1
FAMILIES: dict[str, Any] = {
    "vit_tiny_patch16_224": {},
    "vit_base_patch16_siglip_224": {},  # no class token
    "vit_small_patch14_reg4_dinov2": {"patch_size": 16},  # registers
    "eva02_tiny_patch14_224": {"patch_size": 16},  # places in every block
    "beit_base_patch16_224": {},
}
_MODELS: dict[str, Any] = {}


def model_of(name: str) -> Any:
    if name not in _MODELS:
        _MODELS[name] = small_vit(name, **FAMILIES[name])
    return _MODELS[name]


def images(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def homes(pruned: PrunedViT, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the tokens that are left, and of those that stand for every token of the whole sequence."""
    state = pruned.start(pixels, unmerge=True)
    for row in pruned.budget.blocks:
        state, _ = pruned.step(row.block, state)
    assert state.home is not None
    return state.ids, state.ids.gather(1, state.home)


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(st.data())
def test_any_budget_fills_the_grid_with_tokens_that_live(data: st.DataObject) -> None:
    name, method = data.draw(st.sampled_from(list(FAMILIES))), data.draw(st.sampled_from(sorted(METHODS)))
    model = model_of(name)
    whole, prefix = model.num_prefix_tokens + 16, model.num_prefix_tokens
    left, stages = whole, {}
    for block in sorted(data.draw(st.sets(st.integers(0, 3), min_size=1))):
        left = data.draw(st.integers(max(prefix + 1, left - (left - prefix) // 2 + 1), left))
        stages[block] = left
    parameters = {"place": data.draw(st.sampled_from(PLACES))}
    budget = budget_for(model, stages, method, parameters)
    if not budget.stages:
        return
    assume(
        not (METHODS[method].masks_duplicates and getattr(model, "attn_pool", None) is not None)
    )  # refused in a line
    pruned = PrunedViT(model, budget, ("logits", "grid"), compares=data.draw(st.booleans()))
    with torch.inference_mode():
        logits, tokens = pruned(images())
        kept = pruned.forward_features(images())
        assert tokens.shape == (2, whole, model.embed_dim)
        assert torch.equal(logits, pruned.trace(images()).logits)
        ids, home = homes(pruned, images())
        for row in range(2):
            assert set(home[row].tolist()) == set(ids[row].tolist())  # all that live, and no other
            for token in ids[row].tolist():
                assert home[row, token] == token  # what lives stands for itself
            assert home[row, :prefix].tolist() == list(range(prefix))
            assert set(home[row, prefix:].tolist()).isdisjoint(range(prefix))
            place = ids[row] if pruned.method.orders else ids[row].sort().values
            torch.testing.assert_close(tokens[row, place], kept[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_plan_that_keeps_all_gives_dense_tokens_to_the_bit(name: str) -> None:
    model = model_of(name)
    pruned = PrunedViT(model, budget_for(model, {}), ("logits", "grid"))
    with torch.inference_mode():
        expected = model.forward_features(images())
        logits, tokens = pruned(images())
        assert torch.equal(tokens, expected)
        assert torch.equal(pruned.forward_features(images(), unmerge=True), expected)
        assert torch.equal(logits, model.forward_head(expected))


def test_a_merged_patch_has_the_token_that_it_went_into(vit: Any) -> None:
    pruned = PrunedViT(vit, budget_for(vit, {0: 12, 2: 8}, "tome"), ("logits", "grid"))
    with torch.inference_mode():
        trace, (_, home) = pruned.trace(images()), homes(pruned, images())
    assert trace.margin is not None
    assert torch.isinf(trace.margin).all()  # nothing was chosen: the merges say it all
    for row in range(2):
        into = list(range(TOKENS))
        for block in (0, 2):
            moves = {int(pair) // PACKED: int(pair) % PACKED for pair in trace.merged[block][row]}
            into = [moves.get(token, token) for token in into]
        assert home[row].tolist() == into


def test_a_dropped_token_goes_to_the_patch_most_like_it() -> None:
    tokens = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 5.0], [0.1, 1.0], [3.0, 0.2], [9.0, 9.1]]])
    kept = torch.tensor([[0, 2, 1]])
    where, margin = way(tokens, Selection(kept), 3, prefix=1)
    # 3 is like 2, 4 like 1; 5 is like the class token, which stands for no patch, and nearest to 2 then.
    assert where.tolist() == [[0, 2, 1, 1, 2, 1]]
    assert margin.item() == pytest.approx(0.1 / 2**0.5 / (9.0**2 + 9.1**2) ** 0.5 * 2**0.5, rel=1e-3)
    merge = Merge(torch.tensor([[3]]), torch.tensor([[2]]))
    assert way(tokens, Selection(kept, merge=merge), 3, prefix=1)[0].tolist() == [[0, 2, 1, 2, 2, 1]]
    idle = Merge(torch.tensor([[3]]), torch.tensor([[2]]), active=torch.tensor([False]))
    assert way(tokens, Selection(kept, merge=idle), 3, prefix=1)[0].tolist() == where.tolist()
    assert way(tokens, Selection(None), 3, prefix=1)[0].tolist() == [[0, 1, 2, 2, 1, 2]]


def test_what_is_fused_does_not_stand_for_a_patch_by_itself(vit: Any) -> None:
    pruned = PrunedViT(vit, budget_for(vit, {1: 9}, "evit", {"fuse": True}), ("logits", "grid"))
    with torch.inference_mode():
        ids, home = homes(pruned, images())
    assert (ids == TOKENS).any(1).all()
    assert (home < TOKENS).all()


def test_of_a_plan_that_drops_every_patch_nothing_can_be_put_back(vit: Any) -> None:
    pruned = PrunedViT(vit, budget_for(vit, {1: 9, 3: PREFIX}, "evit"))
    with pytest.raises(InputError, match=r"drops every patch; make one that does not: prune\(\.\.\., final=False\)"):
        pruned.forward_features(images(), unmerge=True)
    with pytest.raises(InputError, match="leave no patch"):
        PrunedViT(vit, pruned.budget, ("logits", "grid"))
