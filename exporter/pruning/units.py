"""Where in a timm model heads and MLP neurons can leave: its blocks, and what stands in the way."""

from __future__ import annotations

from typing import Any

from timm.layers import Attention, Mlp
from timm.models import (
    beit,
    byobnet,
    cait,
    coat,
    convit,
    convnext,
    crossvit,
    davit,
    edgenext,
    efficientformer,
    efficientformer_v2,
    efficientvit_msra,
    eva,
    fastvit,
    focalnet,
    gcvit,
    hiera,
    hieradet_sam2,
    levit,
    maxxvit,
    metaformer,
    mvitv2,
    nest,
    nextvit,
    pit,
    pvt_v2,
    repvit,
    swiftformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    tiny_vit,
    tnt,
    twins,
    visformer,
    vision_transformer_relpos,
    vision_transformer_sam,
    volo,
    xcit,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

SLIMMABLE = "timm's VisionTransformer family, Swin, Swin V2, EVA, BEiT and hierarchical models with plain MLPs"

# Of these, every block has plain attention and a plain MLP, or the model is refused.
_WHOLE: dict[type[nn.Module], tuple[type[nn.Module], type[nn.Module]]] = {
    VisionTransformer: (Block, Attention),
    VisionTransformerDistilled: (Block, Attention),
    SwinTransformer: (SwinTransformerBlock, WindowAttention),
}
# Of these, blocks of the named kinds lose neurons where their MLP is plain, and heads where timm's plain `Attention`
# is in them. All other attention of timm's gives its heads back as wide as its input was, so a head cannot leave by
# narrower weights alone.
_PARTLY: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    beit.Beit: (beit.Block,),
    byobnet.ByobNet: (Block,),  # MobileViT
    cait.Cait: (cait.LayerScaleBlock, cait.LayerScaleBlockClassAttn),
    coat.CoaT: (coat.SerialBlock,),  # parallel blocks share one MLP among scales
    convit.ConVit: (convit.Block,),
    convnext.ConvNeXt: (convnext.ConvNeXtBlock,),
    crossvit.CrossVit: (Block,),  # those that look across have no MLP
    davit.DaVit: (davit.SpatialBlock, davit.ChannelBlock),
    edgenext.EdgeNeXt: (edgenext.ConvBlock, edgenext.SplitTransposeBlock),
    efficientformer.EfficientFormer: (efficientformer.MetaBlock1d,),
    eva.Eva: (eva.EvaBlock, eva.EvaBlockPostNorm),
    gcvit.GlobalContextVit: (gcvit.GlobalContextVitBlock,),
    hiera.Hiera: (hiera.HieraBlock,),
    hieradet_sam2.HieraDet: (hieradet_sam2.MultiScaleBlock,),
    maxxvit.MaxxVit: (maxxvit.PartitionAttentionCl,),
    metaformer.MetaFormer: (metaformer.MetaFormerBlock,),
    mvitv2.MultiScaleVit: (mvitv2.MultiScaleBlock,),
    nest.Nest: (nest.TransformerLayer,),
    pit.PoolingVisionTransformer: (Block,),
    swin_transformer_v2.SwinTransformerV2: (swin_transformer_v2.SwinTransformerV2Block,),
    swin_transformer_v2_cr.SwinTransformerV2Cr: (swin_transformer_v2_cr.SwinTransformerV2CrBlock,),
    tiny_vit.TinyVit: (tiny_vit.TinyVitBlock,),
    tnt.TNT: (tnt.Block,),  # its MLP of pixels stays whole
    twins.Twins: (twins.Block,),
    vision_transformer_relpos.VisionTransformerRelPos: (
        vision_transformer_relpos.RelPosBlock,
        vision_transformer_relpos.ResPostRelPosBlock,
    ),
    vision_transformer_sam.VisionTransformerSAM: (vision_transformer_sam.Block,),
    volo.VOLO: (volo.Outlooker, volo.Transformer, volo.ClassBlock),
    xcit.Xcit: (xcit.XCABlock, xcit.ClassAttentionBlock),
}
NEURON_FAMILIES = tuple(_PARTLY)  # each has a test that proves it
# Vision Transformers of timm's that are none of these, and why their neurons stay.
_UNLIKE: dict[type[nn.Module], str] = {
    efficientformer_v2.EfficientFormerV2: "a depthwise convolution stands between the layers of its MLPs",
    efficientvit_msra.EfficientVitMsra: "its MLPs are convolutions with batch normalization",
    fastvit.FastVit: "its MLPs are convolutions with batch normalization",
    focalnet.FocalNet: "its MLPs are convolutions",
    levit.Levit: "batch normalization follows every layer of its MLPs",
    levit.LevitDistilled: "batch normalization follows every layer of its MLPs",
    nextvit.NextViT: "its MLPs are convolutions",
    pvt_v2.PyramidVisionTransformerV2: "a depthwise convolution stands between the layers of its MLPs",
    repvit.RepVit: "its MLPs are convolutions with batch normalization",
    swiftformer.SwiftFormer: "its MLPs are convolutions with batch normalization",
    visformer.Visformer: "its MLPs are convolutions",
}


def refuse_slimming(model: nn.Module) -> str | None:
    """Why a model cannot be slimmed; None where it can."""
    kind = type(model)
    if kind in _WHOLE:
        return _refuse_whole(model)
    if kind in _PARTLY:
        found = [reason for path, block in _of_kinds(model) if (reason := _unlike(path, block.mlp)) is not None]
        if named_blocks(model):
            return None
        return found[0] if found else f"none of the blocks of this {kind.__name__} has timm's plain Mlp"
    return f"it is a {kind.__name__}" + (f", and {_UNLIKE[kind]}" if kind in _UNLIKE else "")


def _refuse_whole(model: Any) -> str | None:
    """What is not plain in one of a model's blocks; None: nothing."""
    wanted, plain = _WHOLE[type(model)]
    for path, block in named_blocks(model):
        for part, kind in ((path, wanted), (f"{path}.attn", plain)):
            found = type(model.get_submodule(part))
            if found is not kind:
                return f"{part} is a {found.__name__}, not timm's plain {kind.__name__}"
        reason = _unlike(path, block.mlp)
        if reason is not None:
            return reason
        if not isinstance(getattr(block.attn, "norm", nn.Identity()), nn.Identity):
            return f"{path}.attn.norm normalizes over the units, so none can leave without moving the others"
        if getattr(block.attn, "gate", None) is not None:
            return f"{path}.attn gates its heads"
    return None


def _unlike(path: str, mlp: Any) -> str | None:
    """Why no neuron can leave a block's MLP; None where they can."""
    if type(mlp) not in (Mlp, tiny_vit.NormMlp):
        return f"{path}.mlp is a {type(mlp).__name__}, not timm's plain Mlp"
    if not isinstance(mlp.fc1, nn.Linear):
        return f"{path}.mlp is made of convolutions, not of timm's plain linear layers"
    if type(mlp) is Mlp and not isinstance(mlp.norm, nn.Identity):
        return f"{path}.mlp.norm normalizes over the units, so none can leave without moving the others"
    return None


def _of_kinds(model: nn.Module) -> list[tuple[str, Any]]:
    """Path and module of every block of the kinds that a hierarchical model is made of."""
    kinds = _PARTLY[type(model)]
    return [(path, module) for path, module in model.named_modules() if type(module) in kinds]


def named_blocks(model: Any) -> list[tuple[str, Any]]:
    """Path and module of every block that units can leave, in the order in which an image passes them."""
    if type(model) in _PARTLY:
        return [(path, block) for path, block in _of_kinds(model) if _unlike(path, block.mlp) is None]
    if isinstance(model, SwinTransformer):
        return [
            (f"layers.{stage}.blocks.{index}", block)
            for stage, layer in enumerate(model.layers)
            for index, block in enumerate(layer.blocks)  # type: ignore[arg-type]
        ]
    return [(f"blocks.{index}", block) for index, block in enumerate(model.blocks)]


def blocks_of(model: nn.Module) -> list[Any]:
    """The blocks that units can leave, in the order in which an image passes them."""
    return [block for _, block in named_blocks(model)]


def attention_of(block: Any) -> Any | None:
    """The attention of a block whose heads can leave; None where they cannot, by narrower weights alone."""
    attn = getattr(block, "attn", None)
    if type(attn) not in (Attention, WindowAttention):
        return None
    plain = isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity) and getattr(attn, "gate", None) is None
    return attn if plain else None
