"""What a timm model is: its dimensions, its name, its input, and whether its tokens can be pruned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from timm.layers import Attention, AttentionRope, PatchEmbed
from timm.models import beit, eva
from timm.models import vision_transformer as timm_vit
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from ..core.answers import FEATURES, LOGITS, Task
from ..core.errors import UnsupportedError
from .budget import Budget, check_legal

NO_CLASSIFIER = "it has no classifier (num_classes is 0), and slimming judges by that; give args: {num_classes: N}"
SUPPORTED = "timm's ViT family (ViT, AugReg, DeiT, DeiT-III, MAE, DINOv2, CLIP), EVA, DINOv3, RoPE ViTs and BEiT"
_BLOCKS: dict[type, tuple[type, tuple[type, ...]]] = {
    timm_vit.VisionTransformer: (timm_vit.Block, (Attention,)),
    VisionTransformerDistilled: (timm_vit.Block, (Attention,)),
    eva.Eva: (eva.EvaBlock, (eva.EvaAttention, AttentionRope)),
    beit.Beit: (beit.Block, (beit.Attention,)),
}


@dataclass(frozen=True)
class ViTShape:
    """The numbers of a supported model that budgets and costs need.

    Attributes:
        tokens: tokens entering the first block, prefix tokens included.
        prefix_tokens: class, distillation and register tokens.
        class_token: whether token 0 is a class token.
        prefix_pooled: whether the classifier reads prefix tokens only, so that the last block's patches are of no
            use after its attention.
        read_tokens: how many tokens at the front such a classifier reads; 0 where it reads patches, too.
        linear_macs: by block, multiply-accumulates per token of all linear layers of (attention, MLP).
        key_macs: by block, the part of the attention's that keys and values are.
        query_macs: by block, the part that queries are; the rest is the projection and what gates it.
        attention_width: by block, heads * head_dim, which the two attention products cost.
        stem_macs: of the patch embedding, for the whole image.
        head_macs: of the classifier.
        output: what the model answers with, see `output_of`.
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
    read_tokens: int
    classes: int
    image_size: tuple[int, int, int]
    linear_macs: tuple[tuple[int, int], ...]
    key_macs: tuple[int, ...]
    query_macs: tuple[int, ...]
    attention_width: tuple[int, ...]
    stem_macs: int
    head_macs: int
    output: str = LOGITS.output


def with_all_read(shape: ViTShape) -> ViTShape:
    """The shape of the same model where somebody reads all tokens of its last block."""
    return replace(shape, prefix_pooled=False, read_tokens=0)


def check_fits_model(budget: Budget, shape: ViTShape, where: str = "budget") -> None:
    """Refuse a plan that the model cannot follow, see `budget.check_legal`.

    Raises:
        InputError: naming the row, the value and the limit.
    """
    check_legal(
        budget,
        depth=shape.depth,
        tokens=shape.tokens,
        prefix_tokens=shape.prefix_tokens,
        prefix_pooled=shape.prefix_pooled,
        where=where,
    )


def _weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _attention_width(attn: Any) -> int:
    return int(attn.proj.in_features)


def _key_macs(attn: Any) -> int:
    if attn.qkv is None:
        return int(attn.k_proj.weight.numel() + attn.v_proj.weight.numel())
    return int(attn.qkv.weight.numel()) // 3 * 2


def _query_macs(attn: Any) -> int:
    return int(attn.q_proj.weight.numel() if attn.qkv is None else attn.qkv.weight.numel() // 3)


def _prefix_pooled(vit: Any) -> bool:
    return vit.global_pool == "token" and getattr(vit, "attn_pool", None) is None


def read_tokens(model: nn.Module) -> int:
    """How many tokens at the front are all that a model's classifier reads; 0: it reads others, or is of no such kind.

    A distilled DeiT reads two, its class and its distillation token; registers are read by none.
    """
    vit: Any = model
    if type(model) not in _BLOCKS or not vit.num_prefix_tokens or not _prefix_pooled(vit):
        return 0
    wanted, attentions = _BLOCKS[type(model)]
    if type(vit.blocks[-1]) is not wanted or type(getattr(vit.blocks[-1], "attn", None)) not in attentions:
        return 0
    return 2 if isinstance(model, VisionTransformerDistilled) else 1


def model_name(model: nn.Module) -> str:
    """timm's name of a model's architecture."""
    return str((getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__)


def task_of_model(model: Any) -> Task:
    """What a timm model answers with: features, pooled, where it has no classifier."""
    return LOGITS if getattr(model, "num_classes", 0) else FEATURES


def output_of(model: Any) -> str:
    """The name of a timm model's answer among a graph's outputs."""
    return task_of_model(model).output


def describe(model: nn.Module) -> ViTShape:
    """Read a model's dimensions, or say why vitrim does not take it.

    Raises:
        UnsupportedError: naming the model, the part in the way, and what is supported.
    """
    name = model_name(model)

    def refuse(reason: str) -> UnsupportedError:
        return UnsupportedError(f"{name} is not supported: {reason}; vitrim prunes tokens of {SUPPORTED}")

    if type(model) not in _BLOCKS:
        raise refuse(f"it is a {type(model).__name__}, not a plain VisionTransformer, EVA or BEiT")
    wanted, attentions = _BLOCKS[type(model)]
    vit: Any = model
    for index, block in enumerate(vit.blocks):
        found = type(block)
        if found is not wanted:
            raise refuse(f"blocks.{index} is a {found.__name__}, not timm's pre-norm {wanted.__name__}")
        if type(block.attn) not in attentions:
            raise refuse(f"blocks.{index}.attn is a {type(block.attn).__name__}, not timm's plain Attention")
    if not vit.global_pool:
        raise refuse(
            "it has no pooling (global_pool is empty), so it returns only tokens; give args: {global_pool: avg}"
        )
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
        head_dim=_attention_width(first) // first.num_heads,
        tokens=grid[0] * grid[1] + prefix,
        prefix_tokens=prefix,
        class_token=vit.cls_token is not None,
        prefix_pooled=_prefix_pooled(vit),
        read_tokens=read_tokens(vit),
        classes=vit.num_classes,
        image_size=image_size(vit),
        linear_macs=tuple((_weights(block.attn), _weights(block.mlp)) for block in vit.blocks),
        key_macs=tuple(_key_macs(block.attn) for block in vit.blocks),
        query_macs=tuple(_query_macs(block.attn) for block in vit.blocks),
        attention_width=tuple(_attention_width(block.attn) for block in vit.blocks),
        stem_macs=grid[0] * grid[1] * conv.weight.numel(),
        head_macs=sum(head.weight.numel() for head in heads),
        output=output_of(vit),
    )


def refuse_pruning(model: nn.Module) -> str | None:
    """Why a model's tokens cannot be pruned; None where they can."""
    try:
        describe(model)
    except UnsupportedError as error:
        return str(error).partition(": ")[2].partition("; vitrim prunes")[0]
    return None


def image_size(model: Any) -> tuple[int, int, int]:
    """Channels, height and width of a model's input.

    Of a model that does not say its size, as many hierarchical ones, that of its published weights.

    Raises:
        UnsupportedError: nothing says it.
    """
    channels = next(layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d))
    size: Any = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        size = ((getattr(model, "pretrained_cfg", None) or {}).get("input_size") or ())[1:]
    if len(size) != 2:
        raise UnsupportedError(f"{model_name(model)} does not say the size of its images, nor does its pretrained_cfg")
    height, width = size
    return channels, height, width
