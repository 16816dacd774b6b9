"""What a timm model is: its dimensions, its name, its input, and whether its tokens can be pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.layers import PatchEmbed
from timm.models import vision_transformer as timm_vit
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from .errors import UnsupportedError

NO_CLASSIFIER = "it has no classifier (num_classes is 0); give args: {num_classes: N} with a trained head"
SUPPORTED = "timm's plain VisionTransformer family: ViT, AugReg, DeiT, distilled DeiT, DeiT-III, MAE, DINOv2, CLIP"


@dataclass(frozen=True)
class ViTShape:
    """The numbers of a supported model that budgets and costs need.

    Attributes:
        tokens: tokens entering the first block, prefix tokens included.
        prefix_tokens: class, distillation and register tokens.
        class_token: whether token 0 is a class token.
        prefix_pooled: whether the classifier reads prefix tokens only, so that the last block's patches are of no
            use after its attention.
        linear_macs: by block, multiply-accumulates per token of all linear layers of (attention, MLP).
        attention_width: by block, heads * head_dim, which the two attention products cost.
        stem_macs: of the patch embedding, for the whole image.
        head_macs: of the classifier.
    """

    name: str
    depth: int
    width: int
    heads: int
    head_dim: int
    tokens: int
    prefix_tokens: int
    class_token: bool
    prefix_pooled: bool
    classes: int
    image_size: tuple[int, int, int]
    linear_macs: tuple[tuple[int, int], ...]
    attention_width: tuple[int, ...]
    stem_macs: int
    head_macs: int


def _weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def model_name(model: nn.Module) -> str:
    """timm's name of a model's architecture."""
    return str((getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__)


def describe(model: nn.Module) -> ViTShape:
    """Read a model's dimensions, or say why vitrim does not take it.

    Raises:
        UnsupportedError: naming the model, the part in the way, and what is supported.
    """
    name = model_name(model)

    def refuse(reason: str) -> UnsupportedError:
        return UnsupportedError(f"{name} is not supported: {reason}; vitrim prunes tokens of {SUPPORTED}")

    if type(model) not in (timm_vit.VisionTransformer, VisionTransformerDistilled):
        raise refuse(f"it is a {type(model).__name__}, not a plain VisionTransformer")
    vit: Any = model
    for index, block in enumerate(vit.blocks):
        if type(block) is not timm_vit.Block:
            raise refuse(f"blocks.{index} is a {type(block).__name__}, not timm's pre-norm Block")
        if type(block.attn) is not timm_vit.Attention:
            raise refuse(f"blocks.{index}.attn is a {type(block.attn).__name__}, not timm's plain Attention")
    if vit.num_classes == 0:
        raise refuse(NO_CLASSIFIER)
    if not vit.global_pool:
        raise refuse("it has no pooling (global_pool is empty), so it returns tokens instead of logits")
    if type(vit.patch_embed) is not PatchEmbed:
        raise refuse(f"its stem is a {type(vit.patch_embed).__name__}, not timm's PatchEmbed")
    grid = vit.patch_embed.grid_size
    prefix = vit.num_prefix_tokens
    first = vit.blocks[0].attn
    conv = next(m for m in vit.patch_embed.modules() if isinstance(m, nn.Conv2d))
    heads = [m for m in (vit.head, getattr(vit, "head_dist", None)) if isinstance(m, nn.Linear)]
    return ViTShape(
        name=name,
        depth=len(vit.blocks),
        width=vit.embed_dim,
        heads=first.num_heads,
        head_dim=first.head_dim,
        tokens=grid[0] * grid[1] + prefix,
        prefix_tokens=prefix,
        class_token=bool(vit.has_class_token),
        prefix_pooled=vit.global_pool == "token" and vit.attn_pool is None,
        classes=vit.num_classes,
        image_size=image_size(vit),
        linear_macs=tuple((_weights(block.attn), _weights(block.mlp)) for block in vit.blocks),
        attention_width=tuple(block.attn.attn_dim for block in vit.blocks),
        stem_macs=grid[0] * grid[1] * conv.weight.numel(),
        head_macs=sum(head.weight.numel() for head in heads),
    )


def image_size(model: Any) -> tuple[int, int, int]:
    """Channels, height and width of a model's input."""
    height, width = model.patch_embed.img_size
    channels = next(layer.in_channels for layer in model.patch_embed.modules() if isinstance(layer, nn.Conv2d))
    return channels, height, width


def embed(model: Any, image: Tensor) -> Tensor:
    """Everything before the first block, as timm's `forward_features` does it."""
    return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image))))
