"""Models whose blocks ask where tokens stand: places follow the tokens that are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import attended, budget_for, small_recipe, small_vit
from timm.layers import set_fused_attn

from vitrim import api
from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.block import Places, embed, follow, mlp, places_of, run_whole
from vitrim.exporter.pruning.decisions import Replay
from vitrim.exporter.pruning.reference import drop_tokens
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.pruning.whole import WholeModel
from vitrim.exporter.runtime.runners import OrtRunner

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "eva02": ("eva02_tiny_patch14_224", {}),
    "eva02, fused qkv": ("eva02_tiny_patch14_224", {"qkv_fused": True, "swiglu_mlp": False}),
    "eva (no rope)": ("eva_giant_patch14_224", {"mlp_ratio": 4.0}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "rope": ("vit_small_patch16_rope_224", {}),
    "mixed rope, absolute too": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "beit, shared bias": (
        "beit_base_patch16_224",
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "global_pool": "token"},
    ),
    "beit, absolute only": ("beit_base_patch16_224", {"use_rel_pos_bias": False, "use_abs_pos_emb": True}),
}
images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def small(family: str, **more: Any) -> Any:
    name, args = FAMILIES[family]
    return small_vit(name, **args, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_removed_is_timm_s_to_the_bit(family: str) -> None:
    """All but the last block of a model whose classifier reads its class token alone: within rounding, it is so too."""
    model = small(family)
    pruned = PrunedViT(model, budget_for(model, {}))
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(model.forward_head(pruned.forward_features(images)), expected)
        for lean in (pruned(images), WholeModel(model)(images)):
            torch.testing.assert_close(lean, expected, atol=1e-5, rtol=0)
            assert torch.equal(lean, expected) or describe(model).read_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spelled_out_block_is_timm_s(family: str) -> None:
    set_fused_attn(False)
    try:
        model = small(family)
    finally:
        set_fused_attn(True)
    places = places_of(model)
    assert (places is None) == (family in ("eva (no rope)", "beit, absolute only"))
    with torch.inference_mode():
        x = embed(model, images)
        for index, block in enumerate(model.blocks):
            out, seen = attended(model, index, block.norm1(x), places=places)
            attention, keys, values = seen.attention, seen.keys, seen.values
            expected = run_whole(model, index, x, places)
            torch.testing.assert_close(mlp(block, x + out), expected, atol=2e-5, rtol=1e-5)
            assert attention is not None
            assert keys.shape == values.shape == (3, 3, x.shape[1], 16)
            x = expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("method", "place"),
    [
        *((method, "before_mlp") for method in ("zero_tprune", "tome", "ppt", "evit", "ats")),
        *((method, "before_queries") for method in ("tome", "evit", "frugal")),
    ],
)
def test_places_follow_the_tokens(family: str, method: str, place: str) -> None:
    """Against timm's attention modules, given only the tokens that are left and their own places."""
    model = small(family)
    prefix = describe(model).prefix_tokens
    budget = budget_for(model, {0: prefix + 12, 2: prefix + 7}, method, {"place": place})
    with torch.inference_mode():
        found = PrunedViT(model, budget).trace(images)
        again = PrunedViT(model, budget).trace(images, Replay(found.kept, found.merged))
        expected = drop_tokens(model, budget, images, found.kept, found.merged)
    assert found.logits is not None
    assert again.logits is not None
    torch.testing.assert_close(found.logits, expected, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(again.logits, found.logits, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["eva02", "dinov3", "mixed rope, absolute too", "beit", "beit, shared bias"])
def test_wrong_places_would_be_seen(family: str) -> None:
    """The same tokens with the first places, as if they had not moved, give other logits."""
    model = small(family)
    prefix = describe(model).prefix_tokens
    budget = budget_for(model, {1: prefix + 8}, "zero_tprune")
    whole = places_of(model)
    assert whole is not None
    with torch.inference_mode():
        found = PrunedViT(model, budget).trace(images)
        ids = found.kept[1]
        right, wrong = (follow(whole, rows, prefix) for rows in (ids, torch.arange(prefix + 8).expand(3, -1)))
        x = torch.randn(3, prefix + 8, 48, generator=torch.Generator().manual_seed(1))
        outs = [attended(model, 2, x, places=places)[0] for places in (right, wrong)]
    assert (outs[0] - outs[1]).abs().max() > 1e-3


def test_places_in_numbers() -> None:
    rope = torch.arange(8.0).reshape(4, 2)
    pairs = torch.arange(25).reshape(5, 5)
    found = follow(Places((rope,), pairs), torch.tensor([[0, 2, 4], [0, 1, 3]]), 1)
    assert found.rope[0].tolist() == [[[[2, 3], [6, 7]]], [[[0, 1], [4, 5]]]]
    assert found.pairs is not None
    assert found.pairs[0].tolist() == [[0, 2, 4], [10, 12, 14], [20, 22, 24]]
    assert found.pairs[1].tolist() == [[0, 1, 3], [5, 6, 8], [15, 16, 18]]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["eva02", "dinov3", "mixed rope, absolute too", "beit"])
def test_graphs_are_static_clean_and_equal(family: str) -> None:
    model = small(family, depth=3)
    prefix = describe(model).prefix_tokens
    pruned = PrunedViT(model, budget_for(model, {0: prefix + 10, 1: prefix + 6}, similar=2), ("logits", "kept"))
    image = images[:2].numpy()
    with torch.inference_mode():
        expected = pruned.trace(torch.from_numpy(image))
    assert expected.logits is not None
    traced = trace(pruned, 2)
    for target in map(get_target, ("ort-cpu", "trt-8.5")):
        graph, _ = rewrite(traced, target, {"image": image}, fused_attention=target.name == "ort-cpu")
        assert lint(graph, target) == []
        outputs = OrtRunner(graph.SerializeToString())(image)
        np.testing.assert_allclose(outputs["logits"], expected.logits.numpy(), atol=5e-5)
        for block in (0, 1):
            assert outputs[f"kept_{block}"].tolist() == expected.kept[block].tolist()


def test_a_fused_token_stands_nowhere() -> None:
    model = small("beit")
    with pytest.raises(UnsupportedError, match="a token fused from many stands nowhere"):
        PrunedViT(model, budget_for(model, {1: 9}, "evit", {"fuse": True}))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_recipe_takes_a_rope_model(tmp_path: Any) -> None:
    args = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 10}
    prune = {"target": None, "keep_rates": {0: 0.6}}
    recipe = small_recipe(model={"name": "vit_small_patch16_rope_224", "args": args}, prune=prune)
    done = api.export(recipe, tmp_path / "out")
    assert done.parity.passed
    assert done.parity.rungs[0].smallest_atol == 0.0


def test_the_first_row_comes_with_the_values_squares_at_no_other_numbers() -> None:
    model = small("eva02")
    places = places_of(model)
    with torch.inference_mode():
        x = embed(model, images)
        normed = model.blocks[1].norm1(x)
        plain = attended(model, 1, normed, weights="first", places=places)
        summed = attended(model, 1, normed, weights="first", places=places, squares=True)
    (out, seen), (other, more) = plain, summed
    torch.testing.assert_close(out, other)
    torch.testing.assert_close(seen.attention, more.attention)
    assert seen.first is None
    assert more.first is not None
    assert seen.attention is not None
    torch.testing.assert_close(more.first.squares, seen.values.square().sum((1, 3)))
    torch.testing.assert_close(more.first.key_squares, seen.keys.mean(1).square().sum(-1))
    torch.testing.assert_close(more.first.logits.softmax(-1), seen.attention[:, :, 0])
