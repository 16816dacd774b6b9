import pytest
import timm
import torch
from helpers import budget_for, random_widths, small_swin, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.units.cost import costs_of, count_macs, unit_cost
from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.pruning.gates import gated
from vitrim.exporter.pruning.load import create_model, fingerprint, load_slimmed, save_slimmed
from vitrim.exporter.pruning.reference import drop_tokens
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.slim import (
    check_fit,
    hard_gates,
    parts_of,
    slim,
    unfused_heads,
    whole_widths,
)
from vitrim.exporter.pruning.units import blocks_of, refuse_slimming
from vitrim.exporter.pruning.vit import PrunedViT

FAMILIES = {
    "vit": lambda: small_vit(),
    "distilled": lambda: small_vit("deit_tiny_distilled_patch16_224"),
    "layer scale": lambda: small_vit("deit3_small_patch16_224"),
    "average pooling": lambda: small_vit("vit_tiny_patch16_224", global_pool="avg", class_token=False),
    "qk norm": lambda: small_vit(qk_norm=True),
    "no qkv bias": lambda: small_vit(qkv_bias=False),
    "swin": lambda: small_swin(),
}


def images_for(model, count=2):
    return torch.randn(count, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_slimmed_model_is_the_hard_masked_one(family):
    model = FAMILIES[family]()
    images = images_for(model)
    for seed in range(4):
        widths = random_widths(model, seed)
        narrow = slim(model, widths)
        with torch.inference_mode(), gated(blocks_of(model), hard_gates(widths)):
            masked = model(images)
        with torch.inference_mode():
            torch.testing.assert_close(narrow(images), masked, atol=1e-5, rtol=0)
            assert not torch.allclose(model(images), masked, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_in_closed_form_are_those_of_the_narrow_model(family):
    model = FAMILIES[family]()
    for seed in range(3):
        widths = random_widths(model, seed)
        narrow = slim(model, widths)
        macs, parameters = unit_cost(model, "macs"), unit_cost(model, "parameters")
        assert macs.of(widths.heads, widths.neurons) == count_macs(narrow)
        assert parameters.of(widths.heads, widths.neurons) == sum(value.numel() for value in narrow.parameters())
        assert costs_of(model, widths)["gmacs"] == (macs.dense / 1e9, count_macs(narrow) / 1e9)


def test_published_sizes():
    """DeiT-S and Swin-T as their papers count them, on PyTorch's meta device."""
    with torch.device("meta"):
        deit, swin = timm.create_model("deit_small_patch16_224"), timm.create_model("swin_tiny_patch4_window7_224")
    assert unit_cost(deit, "macs").dense == 4598882304  # 4.6 G
    assert unit_cost(deit, "parameters").dense == 22050664  # 22.1 M
    assert unit_cost(swin, "macs").dense == 4490566656  # 4.5 G
    assert unit_cost(swin, "parameters").dense == 28288354  # 28.3 M


def test_the_model_itself_stays_and_gates_leave_no_trace():
    model, images = small_vit(), images_for(small_vit())
    before = fingerprint(model)
    widths = random_widths(model, 1)
    with torch.inference_mode():
        dense = model(images)
        with gated(blocks_of(model), hard_gates(widths)):
            assert not torch.equal(model(images), dense)
        slim(model, widths)
        assert torch.equal(model(images), dense)
    assert fingerprint(model) == before


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["vit", "layer scale", "swin"]))
def test_any_widths_fit_and_slimming_twice_composes(seed, family):
    model = FAMILIES[family]()
    first = random_widths(model, seed)
    narrow = slim(model, first)
    second = random_widths(narrow, seed + 1)
    both = first.model_copy(
        update={
            "blocks": tuple(
                a.model_copy(
                    update={
                        "heads": tuple(a.heads[head] for head in b.heads),
                        "neurons": tuple(a.neurons[neuron] for neuron in b.neurons),
                    }
                )
                for a, b in zip(first.blocks, second.blocks, strict=True)
            )
        }
    )
    assert fingerprint(slim(narrow, second)) == fingerprint(slim(model, both))


def test_tokens_of_a_slimmed_model_can_be_pruned():
    model = small_vit()
    narrow = slim(model, random_widths(model, 3))
    shape = describe(narrow)
    assert shape.attention_width == tuple(block.attn.num_heads * 16 for block in narrow.blocks)
    for method in ("zero_tprune", "tome", "ppt"):
        budget = budget_for(narrow, {1: 13, 2: 9}, method)
        images = images_for(model, 3)
        with torch.inference_mode():
            trace = PrunedViT(narrow, budget).trace(images)
            expected = drop_tokens(narrow, budget, images, trace.kept, trace.merged)
        torch.testing.assert_close(trace.logits, expected, atol=1e-4, rtol=0)


def test_a_slimmed_checkpoint_loads_like_any_other(tmp_path):
    model = small_vit()
    widths = random_widths(model, 2)
    narrow, path = slim(model, widths), tmp_path / "slim.safetensors"
    save_slimmed(narrow, widths, path)
    args = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7}
    loaded = create_model("vit_tiny_patch16_224", args=args, checkpoint=path)
    assert fingerprint(loaded) == fingerprint(narrow)
    images = images_for(model)
    with torch.inference_mode():
        assert torch.equal(loaded(images), narrow(images))
    assert fingerprint(load_slimmed(model, widths, path)) == fingerprint(narrow)
    assert fingerprint(model) != fingerprint(narrow)
    with pytest.raises(InputError, match=r"slim\.safetensors: has 4 rows under blocks, but the model has 5"):
        create_model("vit_tiny_patch16_224", args=args | {"depth": 5}, checkpoint=path)


def test_foreign_widths_are_refused_with_the_row():
    model = small_vit()
    other = random_widths(small_vit(num_heads=6), 0)
    with pytest.raises(InputError, match=r"w\.json: blocks\[0\]\.heads_before is 6, but the model has 3 there"):
        check_fit(parts_of(model), other, "w.json")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_giant_patch14_dinov2", r"blocks\.0\.mlp is a GluMlp"),
        ("eva02_tiny_patch14_224", r"blocks\.0\.mlp is a GluMlp, not timm's plain Mlp"),
        ("resnet18", "it is a ResNet"),
        ("pvt_v2_b0", "it is a PyramidVisionTransformerV2, and a depthwise convolution stands between the layers"),
    ],
)
def test_what_cannot_be_slimmed_is_refused_with_the_part(name, why):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedError, match=why):
        parts_of(model)


def test_norms_over_units_are_refused():
    assert "attn.norm normalizes over the units" in refuse_slimming(small_vit(scale_attn_norm=True))
    assert "mlp.norm normalizes over the units" in refuse_slimming(small_vit(scale_mlp_norm=True))


@pytest.mark.parametrize(
    ("width", "heads", "said"),
    [
        (192, 3, None),
        (96, 3, None),
        (120, 3, "head size 40 fits no fused int8"),
        (108, 3, "head size 36 fits no fused"),
    ],
)
def test_heads_that_no_kernel_takes_are_named(width, heads, said):
    model = small_vit(embed_dim=width, num_heads=heads)
    found = unfused_heads(parts_of(model))
    assert found is None if said is None else said in found
    assert unfused_heads(parts_of(slim(model, random_widths(model, 1)))) == found


def test_slimming_to_all_units_changes_nothing_and_twice_is_once() -> None:
    model = small_vit()
    everything = whole_widths(parts_of(model))
    assert fingerprint(slim(model, everything)) == fingerprint(model)
    first = random_widths(model, 5)
    then = random_widths(slim(model, first), 6)
    both = first.followed_by(then)
    assert everything.followed_by(first).blocks == first.blocks
    assert (both.heads, both.neurons) == (then.heads, then.neurons)
    assert fingerprint(slim(model, both)) == fingerprint(slim(slim(model, first), then))
