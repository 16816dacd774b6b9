"""Weights put into a model in the order in which it runs its layers, and what is said where they do not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SMALL, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import LayerScale

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.recover import calls_of, first_difference, recover

SIZE = (3, 64, 64)


@dataclass(frozen=True)
class Held:
    kind: str
    nodes: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray | None
    scale: np.ndarray | None = None
    epsilon: float | None = None


def parts_and_tokens(model: Any, folded: bool = False) -> tuple[list[Held], np.ndarray]:
    """What a graph of a model would hold; `folded`: with layer scales multiplied into the products."""
    parts: list[Held] = []
    calls = calls_of(model, torch.zeros(1, *SIZE))
    for call in calls:
        module: Any = call.module
        if isinstance(module, LayerScale):
            gamma, last = module.gamma.detach().numpy(), parts[-1]
            assert last.bias is not None
            parts[-1] = replace(last, scale=gamma)
            if folded:
                parts[-1] = replace(last, weight=last.weight * gamma[:, None], bias=last.bias * gamma)
            continue
        kind = {"Conv2d": "convolution", "Linear": "product"}.get(type(module).__name__, "norm")
        bias = None if module.bias is None else module.bias.detach().numpy()
        epsilon = float(module.eps) if kind == "norm" else None
        parts.append(Held(kind, (f"node_{len(parts)}",), module.weight.detach().numpy(), bias, epsilon=epsilon))
    first = next(call for call in calls if isinstance(call.module, torch.nn.LayerNorm))
    return parts, first.given[0].numpy()


def fresh(name: str, **args: Any) -> Any:
    return create_model(name, args={**SMALL, "depth": 2, **args}, random=9)


@pytest.mark.parametrize(
    ("name", "args", "folded"),
    [
        ("vit_tiny_patch16_224", {}, False),
        ("deit_tiny_distilled_patch16_224", {}, False),
        ("deit3_small_patch16_224", {}, False),
        ("deit3_small_patch16_224", {}, True),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 64}, True),
        ("vit_base_patch32_clip_224", {"patch_size": 16}, False),
    ],
)
def test_a_model_gets_what_another_one_computes_with(name: str, args: dict[str, Any], folded: bool) -> None:
    model, other = small_vit(name, depth=2, **args), fresh(name, **args)
    recover(other, *parts_and_tokens(model, folded), SIZE)
    image = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = model(image), other(image)
    assert (wanted - found).abs().max() < 1e-5 * wanted.abs().max()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), epsilon=st.sampled_from([1e-12, 1e-6, 1e-3]))
def test_any_weights_are_recovered_with_the_epsilon_that_they_go_with(seed: int, epsilon: float) -> None:
    model, other = small_vit(depth=1, seed=seed), fresh("vit_tiny_patch16_224", depth=1)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.eps = epsilon
    recover(other, *parts_and_tokens(model), SIZE)
    image = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        assert (model(image) - other(image)).abs().max() < 1e-4


def test_the_first_tensor_that_does_not_fit_is_named() -> None:
    parts, tokens = parts_and_tokens(small_vit(depth=2))
    wider = fresh("vit_tiny_patch16_224", mlp_ratio=2)
    with pytest.raises(
        UnsupportedError, match=r"^blocks\.0\.mlp\.fc1\.weight \(product, 96x48\) .* node_5, is a product"
    ):
        recover(wider, parts, tokens, SIZE)
    with pytest.raises(UnsupportedError, match=r"^blocks\.2\.norm1\.weight .* is not in the file|^blocks\.2\.attn"):
        recover(fresh("vit_tiny_patch16_224", depth=3), parts, tokens, SIZE)
    with pytest.raises(UnsupportedError, match=r"^head\.weight \(7x48\) is not in the file, which ends before it"):
        recover(fresh("vit_tiny_patch16_224"), parts[:-1], tokens, SIZE)
    more = [*parts, parts[-1]]
    with pytest.raises(UnsupportedError, match=r"^the file has more than the model: node node_\d+ with 7x48 weights"):
        recover(fresh("vit_tiny_patch16_224"), more, tokens, SIZE)
    with pytest.raises(
        UnsupportedError, match=r"^blocks\.0\.attn\.qkv has no bias, but node node_2 of the file has one"
    ):
        recover(fresh("vit_tiny_patch16_224", qkv_bias=False), parts, tokens, SIZE)
    with pytest.raises(UnsupportedError, match=r"tokens before its first normalization, and the file \[16, 48\]"):
        recover(fresh("vit_tiny_patch16_224"), parts, tokens[1:], SIZE)


def test_where_two_models_begin_to_differ_is_found() -> None:
    model, other = small_vit(depth=2), small_vit(depth=2)
    with torch.no_grad():
        other.blocks[1].attn.proj.bias.add_(1)
    image = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0))
    norms = [call.given.numpy() for call in calls_of(other, image) if isinstance(call.module, torch.nn.LayerNorm)]
    place, name, by = first_difference(model, image, lambda: norms)
    assert (place, name) == (3, "blocks.1.norm2")
    assert by > 1e-2
