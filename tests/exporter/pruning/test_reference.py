"""The plain reference: tokens merged one by one equal the static form, and numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import budget_for, small_vit

from vitrim.exporter.core.layout import PACKED
from vitrim.exporter.pruning.block import embed
from vitrim.exporter.pruning.decisions import Replay
from vitrim.exporter.pruning.reference import _attention, drop_tokens
from vitrim.exporter.pruning.vit import PrunedViT

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
    ("frugal", {"pairs": "halves", "features": "keys", "weight": 0.0}, {}),
    ("frugal", {"place": "before_queries"}, {}),
    ("tome", {"place": "before_queries"}, {}),
    ("ppt", {"place": "before_queries", "threshold": 0.004}, {}),
    ("evit", {"place": "before_queries", "fuse": True}, {}),
    ("zero_tprune", {"place": "before_queries"}, {}),
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
    # Merged tokens that ask do so in another order when decisions are replayed.
    atol = 5e-6 if parameters.get("place") == "before_queries" else 2e-6
    torch.testing.assert_close(again.logits, trace.logits, atol=atol, rtol=1e-6)
    assert all(torch.equal(again.kept[block], ids) for block, ids in trace.kept.items())
    names = [name for name in pruned.output_names() if name.startswith("merged")]
    assert sorted(trace.merged) == [int(name[7:]) for name in names]


def test_what_is_kept_twice_is_there_once_and_what_all_keep_is_the_model(vit: Any) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    budget = budget_for(vit, {1: 5}, "slice")
    twice = torch.tensor([[0, 3, 3, 3, 9], [0, 2, 4, 4, 4]])
    once = [torch.tensor([[0, 3, 9]]), torch.tensor([[0, 2, 4]])]
    found = drop_tokens(vit, budget, images, {1: twice})
    for image, kept in enumerate(once):
        alone = drop_tokens(vit, budget, images[image : image + 1], {1: kept})
        assert torch.equal(found[image : image + 1], alone)
    whole = drop_tokens(vit, budget, images, {1: torch.arange(17).expand(2, -1)})
    with torch.inference_mode():
        torch.testing.assert_close(whole, vit(images), atol=2e-5, rtol=1e-5)
    assert (whole - found).abs().max() > 1e-2


def merged_by_hand(rows: np.ndarray, longest: bool) -> tuple[np.ndarray, list[float]]:
    """Tokens 0, 3 and 5 of sixteen stay; 1 and 2 go into 3, the rest is dropped."""
    three = (rows[3] + rows[1] + rows[2]) / 3
    if longest:
        length = max(np.sqrt((rows[token] ** 2).sum()) for token in (1, 2, 3))
        return np.stack([rows[0], three / np.sqrt((three**2).sum()) * length, rows[5]]), [1.0, 1.0, 1.0]
    return np.stack([rows[0], three, rows[5]]), [1.0, 3.0, 1.0]


@pytest.mark.parametrize(("method", "longest"), [("tome", False), ("tofu", True)])
def test_logits_of_one_block_are_those_by_hand(method: str, longest: bool) -> None:
    model = small_vit(depth=1, class_token=False, global_pool="avg", fc_norm=False)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    options = {"mode": "fuse"} if longest else {}
    budget = budget_for(model, {0: 3}, method, {"place": "after_block"}, **options)
    pairs = torch.tensor([[1 * PACKED + 3, 2 * PACKED + 3, -1]])
    found = drop_tokens(model, budget, image, {0: torch.tensor([[0, 3, 5]])}, {0: pairs})
    with torch.inference_mode():
        rows, sizes = merged_by_hand(model.blocks[0](embed(model, image))[0].double().numpy(), longest)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + model.norm.eps)
    rows = rows * model.norm.weight.detach().numpy() + model.norm.bias.detach().numpy()
    pooled = sum(size * row for size, row in zip(sizes, rows, strict=True)) / sum(sizes)
    expected = model.head.weight.detach().numpy() @ pooled + model.head.bias.detach().numpy()
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)


TWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {}),
    "qk norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "normed attention": ("vit_tiny_patch16_224", {"scale_attn_norm": True}),
    "eva": ("eva02_tiny_patch14_224", {"patch_size": 16}),
    "beit": ("beit_base_patch16_224", {}),
}


@pytest.mark.parametrize("family", TWINS)
def test_a_token_of_size_2_is_attended_to_like_two_equal_ones(family: str) -> None:
    name, args = TWINS[family]
    model = small_vit(name, **args)
    x = torch.randn(1, 5, 48, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        doubled = _attention(model, 1, x[:, [0, 1, 2, 2, 3, 4, 4, 4]], [0, 2, 5, 5, 7, 9, 9, 9], None)
        found = _attention(model, 1, x, [0, 2, 5, 7, 9], torch.tensor([1.0, 1.0, 2.0, 1.0, 3.0]))
        without = _attention(model, 1, x, [0, 2, 5, 7, 9], None)
    torch.testing.assert_close(found, doubled[:, [0, 1, 2, 4, 5]], atol=1e-5, rtol=1e-5)
    assert (found - without).abs().max() > 1e-3
