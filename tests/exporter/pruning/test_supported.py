"""Which of timm's models are taken: asked of timm itself, with the reason for every refusal."""

from __future__ import annotations

import pytest
import timm

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.supported import Answer, ask, survey


def test_every_deit_is_taken() -> None:
    (family,) = survey("deit")
    assert family.name == "deit"
    assert family.models == len(family.prunable) == len(family.slimmable) == len(timm.list_models(module="deit"))
    assert family.refused == {}
    assert family.example is None


@pytest.mark.parametrize(
    ("name", "tokens", "slimming"),
    [
        ("swin_tiny_patch4_window7_224", "it is a SwinTransformer, not a plain VisionTransformer, EVA or BEiT", None),
        ("beit_base_patch16_224", None, "it is a Beit"),
        ("vit_small_patch16_rope_224", None, "it is a Eva"),
        (
            "eva02_enormous_patch14_clip_224",
            "blocks.0 is a EvaBlockPostNorm, not timm's pre-norm EvaBlock",
            "it is a Eva",
        ),
        ("vit_small_r26_s32_224", "its stem is a HybridEmbed, not timm's PatchEmbed", None),
        (
            "vit_small_patch16_18x2_224",
            "blocks.0 is a ParallelThingsBlock, not timm's pre-norm Block",
            "blocks.0 is a ParallelThingsBlock, not timm's plain Block",
        ),
        ("vit_giant_patch14_clip_224", None, None),
    ],
)
def test_refusals_say_why(name: str, tokens: str | None, slimming: str | None) -> None:
    assert ask(name) == Answer(tokens, slimming)


def test_a_model_without_a_classifier_needs_one() -> None:
    (family,) = survey("vit_small_patch14_dinov2")
    assert family.prunable == family.slimmable == family.headless == ("vit_small_patch14_dinov2",)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no family and no model with 'resnext5000' in its name"):
        survey("resnext5000")


def test_progress_counts_models() -> None:
    seen: list[tuple[int, int]] = []
    survey("deit3_small", lambda done, total: seen.append((done, total)))
    assert seen == [(index + 1, len(seen)) for index in range(len(seen))]
    assert seen
