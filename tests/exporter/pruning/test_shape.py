"""What a model is in numbers counted by hand, and what is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from helpers import small_vit
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.shape import SUPPORTED, ViTShape, describe, image_size, model_name


def meta(name: str, **args: Any) -> Any:
    """A timm model without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(name, **args)


def test_every_number_of_a_small_model() -> None:
    """Width 48, three heads of 16, MLPs of 192, patches of 16 x 16 x 3 on 64 x 64, seven classes."""
    assert describe(small_vit()) == ViTShape(
        name="vit_tiny_patch16_224",
        depth=4,
        width=48,
        heads=3,
        head_dim=16,
        tokens=4 * 4 + 1,
        prefix_tokens=1,
        class_token=True,
        prefix_pooled=True,
        read_tokens=1,
        classes=7,
        image_size=(3, 64, 64),
        linear_macs=((48 * 3 * 48 + 48 * 48, 48 * 192 + 192 * 48),) * 4,
        key_macs=(48 * 2 * 48,) * 4,
        query_macs=(48 * 48,) * 4,
        attention_width=(48,) * 4,
        stem_macs=4 * 4 * (16 * 16 * 3 * 48),
        head_macs=48 * 7,
    )


def test_shape_of_deit_tiny() -> None:
    shape = describe(create_model("deit_tiny_patch16_224", random=0))
    assert (shape.depth, shape.width, shape.heads, shape.head_dim, shape.tokens) == (12, 192, 3, 64, 197)
    assert (shape.prefix_tokens, shape.class_token, shape.classes) == (1, True, 1000)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        (
            "deit_tiny_distilled_patch16_224",
            {},
            {"tokens": 198, "prefix_tokens": 2, "read_tokens": 2, "head_macs": 2 * 192 * 1000},
        ),
        (
            "vit_small_patch14_reg4_dinov2",
            {"num_classes": 5},
            {"tokens": 37 * 37 + 5, "prefix_tokens": 5, "read_tokens": 1},
        ),
        (
            "vit_medium_patch16_gap_240",
            {},
            {"tokens": 225, "class_token": False, "prefix_pooled": False, "read_tokens": 0},
        ),
        (
            "vit_base_patch16_siglip_224",
            {"num_classes": 5},
            {"prefix_pooled": False, "prefix_tokens": 0, "read_tokens": 0},
        ),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, {"class_token": True, "prefix_pooled": False}),
        (
            "vit_tiny_patch16_224",
            {"img_size": (32, 64), "in_chans": 1},
            {"image_size": (1, 32, 64), "tokens": 9, "stem_macs": 8 * 16 * 16 * 192},
        ),
        ("vit_small_patch16_dinov3", {"num_classes": 5}, {"name": "vit_small_patch16_dinov3", "prefix_tokens": 5}),
        ("beit_base_patch16_224", {}, {"head_dim": 64, "attention_width": (768,) * 12, "class_token": True}),
    ],
)
def test_what_each_family_says_differently(name: str, args: dict[str, Any], said: dict[str, Any]) -> None:
    shape = describe(meta(name, **args))
    assert {key: getattr(shape, key) for key in said} == said


def test_a_gated_mlp_counts_all_three_of_its_layers() -> None:
    model = meta("eva02_tiny_patch14_224", depth=1, num_classes=5)
    ((attention, mlp),) = describe(model).linear_macs
    hidden = int(192 * 4 * 2 / 3)
    assert (attention, mlp) == (4 * 192 * 192, 3 * 192 * hidden)


def test_the_input_of_a_model_is_that_of_its_stem() -> None:
    assert image_size(meta("vit_tiny_patch16_224", img_size=(48, 96), in_chans=4)) == (4, 48, 96)
    assert model_name(torch.nn.Linear(1, 1)) == "Linear"  # what is none of timm's has its class's name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("resnet18", "ResNet"),
        ("swinv2_tiny_window8_256", "SwinTransformerV2"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos"),
    ],
)
def test_unsupported_models_are_named_with_what_is_supported(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{name} is not supported: it is a {reason}.*DeiT-III"):
        describe(meta(name))


@pytest.mark.parametrize(("classes", "output"), [(0, "features"), (7, "logits")])
def test_a_model_without_a_classifier_answers_with_features(classes: int, output: str) -> None:
    shape = describe(meta("vit_tiny_patch16_224", depth=2, num_classes=classes))
    assert (shape.output, shape.classes, shape.head_macs) == (output, classes, 192 * classes)


def test_unsupported_parts_are_named() -> None:
    for block_fn in (ParallelScalingBlock, ResPostBlock):
        with pytest.raises(UnsupportedError, match=rf"blocks\.0 is a {block_fn.__name__}"):
            describe(meta("vit_tiny_patch16_224", block_fn=block_fn, depth=2))
    with pytest.raises(UnsupportedError, match="AttentionRope|DiffAttention|is a"):
        describe(meta("vit_tiny_patch16_224", attn_layer="diff", depth=2))


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("resnet18", {}, "it is a ResNet, not a plain VisionTransformer, EVA or BEiT"),
        ("vit_tiny_r_s16_p8_224", {"depth": 1}, "its stem is a HybridEmbed, not timm's PatchEmbed"),
        (
            "vit_tiny_patch16_224",
            {"depth": 1, "block_fn": ResPostBlock},
            "blocks.0 is a ResPostBlock, not timm's pre-norm Block",
        ),
        (
            "vit_tiny_patch16_224",
            {"depth": 1, "global_pool": "", "class_token": True},
            "it has no pooling (global_pool is empty), so it returns only tokens; give args: {global_pool: avg}",
        ),
    ],
)
def test_a_refusal_is_one_sentence_with_what_is_supported(name: str, args: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        describe(meta(name, **args))
    assert str(caught.value) == f"{name} is not supported: {reason}; vitrim prunes tokens of {SUPPORTED}"
