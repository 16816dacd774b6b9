"""Which of timm's models are taken: asked of timm itself, with the reason for every refusal."""

from __future__ import annotations

import pytest
import timm

from vitrim.exporter.pruning.supported import Answer, ask, ask_with_classifier, listing


@pytest.mark.parametrize(
    ("name", "tokens", "slimming"),
    [
        ("swin_tiny_patch4_window7_224", "it is a SwinTransformer, not a plain VisionTransformer, EVA or BEiT", None),
        ("swinv2_tiny_window8_256", "it is a SwinTransformerV2, not a plain VisionTransformer, EVA or BEiT", None),
        ("beit_base_patch16_224", None, None),
        ("eva02_tiny_patch14_224", None, "blocks.0.mlp is a GluMlp, not timm's plain Mlp"),
        ("eva02_enormous_patch14_clip_224", "blocks.0 is a EvaBlockPostNorm, not timm's pre-norm EvaBlock", None),
        ("vit_small_r26_s32_224", "its stem is a HybridEmbed, not timm's PatchEmbed", None),
        (
            "vit_small_patch16_18x2_224",
            "blocks.0 is a ParallelThingsBlock, not timm's pre-norm Block",
            "blocks.0 is a ParallelThingsBlock, not timm's plain Block",
        ),
        (
            "poolformer_s12",
            "it is a MetaFormer, not a plain VisionTransformer, EVA or BEiT",
            "stages.0.blocks.0.mlp is made of convolutions, not of timm's plain linear layers",
        ),
        (
            "levit_128s",
            "it is a LevitDistilled, not a plain VisionTransformer, EVA or BEiT",
            "it is a LevitDistilled, and batch normalization follows every layer of its MLPs",
        ),
    ],
)
def test_refusals_say_why(name: str, tokens: str | None, slimming: str | None) -> None:
    assert ask(name) == Answer(tokens, slimming)


def test_a_model_without_a_classifier_is_asked_with_one() -> None:
    assert ask_with_classifier("vit_small_patch14_dinov2") == Answer(None, None, headless=True)
    assert ask_with_classifier("deit_tiny_patch16_224") == Answer(None, None)


def test_all_of_timm_is_listed_and_what_has_weights_is_known() -> None:
    known = listing()
    assert sorted(one.name for models in known.values() for one in models) == sorted(timm.list_models())
    with_weights = {one.name for models in known.values() for one in models if one.pretrained}
    assert with_weights == {name.partition(".")[0] for name in timm.list_pretrained()}
    assert len(with_weights) > 1000
    assert all(one.answer is None for models in known.values() for one in models)
