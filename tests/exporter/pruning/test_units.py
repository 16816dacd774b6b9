"""Families whose neurons leave: a slimmed model is the whole one whose other units are multiplied by 0."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import timm
import torch
from helpers import random_widths, small_vit
from neuron_families import SMALL_FAMILIES, images_of, small_family
from timm.models import byobnet, gcvit, maxxvit

from vitrim.calibration.units.cost import count_macs, unit_cost
from vitrim.exporter.pruning.gates import Gates, gated
from vitrim.exporter.pruning.slim import hard_gates, parts_of, slim
from vitrim.exporter.pruning.units import NEURON_FAMILIES, attention_of, blocks_of, named_blocks, refuse_slimming

LARGE = ("gcvit", "maxvit", "mobilevit")  # which timm does not make small
COUNTED = ("crossvit", "edgenext", "hiera", "pit", "swin v2")  # tokens of two scales, of maps, in units and windows
HEADS_LEAVE = {"crossvit", "mobilevit", "pit"}  # timm's plain attention is in their blocks


@functools.cache
def _made(family: str) -> Any:
    return small_family(family)


def test_every_family_that_is_claimed_is_proven() -> None:
    made = {family: _made(family) for family in SMALL_FAMILIES if family not in LARGE}
    large = {gcvit.GlobalContextVit, maxxvit.MaxxVit, byobnet.ByobNet}
    assert {*map(type, made.values())} | large == {*NEURON_FAMILIES}


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=pytest.mark.slow if one in LARGE else ()) for one in SMALL_FAMILIES]
)
def test_a_slimmed_model_is_the_hard_masked_one(family: str) -> None:
    """In float64, so that nothing but a wrong slice can differ; and one mask an image masks that image alone."""
    model = copy.deepcopy(_made(family))
    images, widths = images_of(model).double(), random_widths(model, 3)
    parameters, narrow = unit_cost(model, "parameters"), slim(model, widths)
    assert parameters.of(widths.heads, widths.neurons) == sum(value.numel() for value in narrow.parameters())
    assert any(part.heads for part in parts_of(model)) == (family in HEADS_LEAVE)
    called: list[Any] = []
    handles = [
        block.mlp.fc2.register_forward_pre_hook(lambda layer, _inputs: called.append(layer))
        for block in blocks_of(model)
    ]
    model, narrow, hard = model.double(), narrow.double(), hard_gates(widths, torch.float64)
    first = Gates(
        *([torch.stack([gate, torch.ones_like(gate)]) for gate in kind] for kind in (hard.heads, hard.neurons))
    )
    with torch.inference_mode():
        dense = model(images)
        assert called == [block.mlp.fc2 for block in blocks_of(model)]  # in the order in which an image passes them
        with gated(blocks_of(model), hard):
            masked = model(images)
        with gated(blocks_of(model), first):
            mixed = model(images)
        slimmed = narrow(images)
    for handle in handles:
        handle.remove()
    assert (masked - dense).abs().max() > 1e-3
    torch.testing.assert_close(slimmed, masked, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed, torch.stack([masked[0], dense[1]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "family",
    [pytest.param(one, marks=() if one in COUNTED else pytest.mark.exhaustive) for one in SMALL_FAMILIES],
)
def test_multiply_accumulates_are_those_of_the_narrow_model(family: str) -> None:
    model = _made(family)
    widths = random_widths(model, 3)
    cost = unit_cost(model, "macs")
    assert cost.of(widths.heads, widths.neurons) == count_macs(slim(model, widths)) < cost.dense


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pvt_v2_b0", "PyramidVisionTransformerV2, and a depthwise convolution stands between the layers of its MLPs"),
        ("levit_128s", "LevitDistilled, and batch normalization follows every layer of its MLPs"),
        ("efficientformerv2_s0", "EfficientFormerV2, and a depthwise convolution stands between the layers"),
        ("efficientvit_m0", "EfficientVitMsra, and its MLPs are convolutions with batch normalization"),
        ("fastvit_t8", "FastVit, and its MLPs are convolutions with batch normalization"),
        ("focalnet_tiny_srf", "FocalNet, and its MLPs are convolutions"),
        ("nextvit_small", "NextViT, and its MLPs are convolutions"),
        ("visformer_tiny", "Visformer, and its MLPs are convolutions"),
        ("poolformer_s12", "stages.0.blocks.0.mlp is made of convolutions"),
        ("convnext_atto", "stages.0.blocks.0.mlp is made of convolutions"),
        ("convnextv2_atto", "stages.0.blocks.0.mlp is a GlobalResponseNormMlp"),
        ("coatnet_0_rw_224", "none of the blocks of this MaxxVit has timm's plain Mlp"),
        ("mobilevitv2_050", "none of the blocks of this ByobNet has timm's plain Mlp"),
    ],
)
def test_what_has_no_plain_mlp_is_refused_with_the_reason(name: str, why: str) -> None:
    with torch.device("meta"):
        assert why in (refuse_slimming(timm.create_model(name)) or "")


def test_mlps_of_positions_are_no_units() -> None:
    """Swin V2's second version and relative positions have a further Mlp, which no token passes."""
    for family, inner in (("swin v2, cr", "attn.meta_mlp"), ("relpos", "attn.rel_pos.mlp")):
        model = small_family(family)
        paths = [path for path, _ in named_blocks(model)]
        assert {type(model.get_submodule(f"{path}.{inner}")).__name__ for path in paths} <= {"Mlp", "RelPosMlp"}
        assert paths
        assert not [path for path in paths if "attn" in path]


def test_heads_leave_where_attention_is_plain() -> None:
    assert attention_of(small_vit().blocks[0]) is not None
    assert attention_of(small_vit(scale_attn_norm=True).blocks[0]) is None
    assert {attention_of(block) for block in blocks_of(small_family("swin v2"))} == {None}
