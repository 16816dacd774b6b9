"""Small models of every family that loses neurons, all weights drawn at random: initial ones hide what a unit does."""

from __future__ import annotations

from typing import Any

import torch

FOUR = {"embed_dims": (16, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (1, 1, 1, 1)}
COAT = {"img_size": 64, "embed_dims": (16, 16, 16, 16), "serial_depths": (1, 1, 1, 1)}
PLAIN = {"img_size": 64, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
# By family, timm's name and arguments.
SMALL_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", PLAIN),
    "cait": ("cait_xxs24_224", PLAIN),
    "caformer": ("caformer_s18", {"dims": (8, 8, 32, 32), "depths": (1, 1, 1, 1)}),
    "coat": ("coat_tiny", {**COAT, "parallel_depth": 1}),
    "coat lite": ("coat_lite_tiny", COAT),
    "convit": ("convit_tiny", {**PLAIN, "local_up_to_layer": 1}),
    "convnext": ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    "crossvit": (
        "crossvit_tiny_240",
        {"img_size": 240, "embed_dim": (16, 32), "depth": ((1, 1, 0),), "num_heads": (2, 2), "mlp_ratio": (4, 4, 1)},
    ),
    "davit": ("davit_tiny", FOUR),
    "dinov3": ("vit_small_patch16_dinov3", PLAIN),
    "edgenext": ("edgenext_xx_small", {"depths": (1, 1, 1, 1), "dims": (16, 16, 16, 16), "heads": (2, 2, 2, 2)}),
    "efficientformer": ("efficientformer_l1", {"depths": (1, 1, 1, 2), "embed_dims": (8, 8, 16, 16)}),
    "eva": ("eva_giant_patch14_224", {**PLAIN, "img_size": 56}),
    "eva, post-norm": ("eva02_enormous_patch14_clip_224", {**PLAIN, "img_size": 56}),
    "gcvit": ("gcvit_xxtiny", {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}),
    "hiera": ("hiera_tiny_224", {"img_size": 64, "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}),
    "maxvit": ("maxvit_tiny_tf_224", {"img_size": 64, "embed_dim": (32, 32, 32, 32), "depths": (1, 1, 1, 1)}),
    "mobilevit": ("mobilevit_xxs", {}),
    "mvitv2": ("mvitv2_tiny", {"embed_dim": 16, "depths": (1, 1, 1, 1)}),
    "nest": ("nest_tiny", {"img_size": 64, "embed_dims": (16, 16, 16), "num_heads": (1, 2, 2), "depths": (1, 1, 1)}),
    "pit": ("pit_ti_224", {"img_size": 64, "base_dims": (8, 8, 8), "depth": (1, 1, 1), "heads": (2, 4, 8)}),
    "relpos": ("vit_relpos_small_patch16_224", PLAIN),
    "relpos, post-norm": ("vit_relpos_base_patch32_plus_rpn_256", PLAIN),
    "rope": ("vit_small_patch16_rope_224", PLAIN),
    "sam": ("samvit_base_patch16_224", {**PLAIN, "window_size": 2, "global_attn_indexes": (1,)}),
    "sam 2": ("sam2_hiera_tiny", {"embed_dim": 16, "stages": (1, 1, 2, 1), "global_att_blocks": (3,)}),
    "swin v2": ("swinv2_tiny_window8_256", SWIN),
    "swin v2, cr": ("swinv2_cr_tiny_224", SWIN),
    "tiny vit": ("tiny_vit_5m_224", {**FOUR, "window_sizes": (7, 7, 4, 2)}),
    "tnt": ("tnt_s_legacy_patch16_224", {"img_size": 64, "embed_dim": 16, "inner_dim": 16, "depth": 2,
                                         "num_heads_inner": 2, "num_heads_outer": 2}),
    "twins, pcpvt": ("twins_pcpvt_small", {"img_size": 64, **FOUR}),
    "twins, svt": ("twins_svt_small", {"img_size": 64, **FOUR, "depths": (2, 2, 2, 2)}),
    "volo": ("volo_d1_224", {"img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32),
                             "num_heads": (1, 2, 2, 2)}),
    "xcit": ("xcit_nano_12_p16_224", PLAIN),
}  # fmt: skip
SIZE = 64  # of images, where neither the model nor its arguments say one


def small_family(family: str, seed: int = 0) -> Any:
    """A small model in eval mode, its parameters drawn at random, that takes small images."""
    import timm
    from timm.models import gcvit, metaformer, mvitv2, nest, tiny_vit, volo

    name, args = SMALL_FAMILIES[family]
    # Of these, timm's functions fix what has to be small.
    direct: dict[str, Any] = {
        "caformer": lambda **given: metaformer.MetaFormer(
            token_mixers=[metaformer.SepConv] * 2 + [metaformer.Attention] * 2,
            norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
            **given,
        ),
        "gcvit": lambda **given: gcvit.GlobalContextVit(window_ratio=(8, 8, 16, 32), **given),
        "mvitv2": lambda num_classes, **given: mvitv2.MultiScaleVit(
            mvitv2.MultiScaleVitCfg(**given), img_size=(SIZE, SIZE), num_classes=num_classes
        ),
        "nest": nest.Nest,
        "tiny vit": tiny_vit.TinyVit,
        "volo": volo.VOLO,
    }
    with torch.random.fork_rng(devices=[]):
        make = direct.get(family, lambda **given: timm.create_model(name, **given))
        model = make(num_classes=7, **args).eval().requires_grad_(False)
    size = args.get("img_size", 224 if family == "efficientformer" else SIZE)  # it has biases of 7 x 7 places
    model.pretrained_cfg = {
        **timm.get_pretrained_cfg(name, allow_unregistered=False).to_dict(), "input_size": (3, size, size)
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.named_parameters():
        one = value.ndim == 1 and key.endswith("weight")  # of a norm
        value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + float(one))
    return model


def images_of(model: Any, count: int = 2) -> torch.Tensor:
    """Noise of a model's size."""
    from vitrim.exporter.pruning.shape import image_size

    return torch.randn(count, *image_size(model), generator=torch.Generator().manual_seed(5))
