"""A config.json: the timm model that it says, with its arguments, and one line where timm has none."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.configs import Config, _ratio, describe_config, is_kind

VIT = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
}
DINO3 = VIT | {"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"]}
SWIN = {
    "model_type": "swin",
    "layer_norm_eps": 1e-5,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
}


def described(**changes: Any) -> Any:
    return describe_config(VIT | changes, {}, "config.json")


@pytest.mark.parametrize(("changes", "name"), [
    ({}, "vit_small_patch16_224"),
    ({"hidden_size": 192}, "vit_tiny_patch16_224"),
    ({"hidden_size": 64}, "vit_base_patch16_224"),  # arguments say the rest
    ({"model_type": "deit"}, "deit_small_patch16_224"),
    ({"model_type": "dinov2", "patch_size": 14}, "vit_small_patch14_dinov2"),
    ({"model_type": "dinov2_with_registers", "patch_size": 14}, "vit_small_patch14_reg4_dinov2"),
    ({"model_type": "dinov3_vit"}, "vit_small_patch16_dinov3_qkvb"),
    ({"model_type": "dinov3_vit", "query_bias": False, "value_bias": False}, "vit_small_patch16_dinov3"),
    ({"model_type": "clip_vision_model", "hidden_size": 768}, "vit_base_patch16_clip_quickgelu_224"),
    ({"model_type": "clip_vision_model", "hidden_size": 768, "hidden_act": "gelu"}, "vit_base_patch16_clip_224"),
    ({"model_type": "siglip_vision_model", "hidden_size": 768}, "vit_base_patch16_siglip_256"),
    (SWIN, "swin_tiny_patch4_window7_224"),
    (SWIN | {"depths": [2, 2, 18, 2]}, "swin_small_patch4_window7_224"),
])  # fmt: skip
def test_the_timm_model_is_found_and_is_there(changes: dict[str, Any], name: str) -> None:
    found = described(**changes)
    assert found.name == name
    assert timm.is_model(name)


def test_what_weights_do_not_tell_is_taken_over() -> None:
    found = described(hidden_act="gelu_new", patch_size=[8, 16], image_size=96)
    assert found.epsilon == 1e-12
    assert found.args["num_heads"] == 6
    assert found.args["act_layer"] == "gelu_tanh"
    assert (found.args["img_size"], found.args["patch_size"]) == (96, [8, 16])


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_type": "convnext"}, r"model_type is convnext, which vitrim takes from no config\.json"),
    ({"architectures": ["ViTForMaskedImageModeling"]}, "architectures says ViTForMaskedImageModeling"),
    ({"auto_map": {"AutoModel": "mine.Mine"}}, "auto_map says that the model is code of its own"),
    ({"hidden_act": "mish"}, "hidden_act is 'mish', and timm has no such model"),
    ({"model_type": "beit", "hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', and timm has no such model"),
    ({"hidden_size": "384"}, "hidden_size is '384'; a number is wanted"),
    ({"num_hidden_layers": None}, "num_hidden_layers is None; a number is wanted"),
    ({"num_hidden_layers": 2.5}, r"num_hidden_layers is 2\.5; a whole number above 0"),
    ({"qkv_bias": 1}, "qkv_bias is 1; true or false"),
    (DINO3 | {"key_bias": True}, "key_bias is true, and timm has no such model"),
    (DINO3 | {"value_bias": False}, "value_bias is false, and timm has no such model"),
    (DINO3 | {"use_gated_mlp": True, "hidden_act": "gelu"}, "hidden_act of a gated MLP is no silu"),
    ({"model_type": "siglip_vision_model", "vision_use_head": False}, "vision_use_head is false"),
    (SWIN | {"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06, and timm has no such Swin"),
    (SWIN | {"use_absolute_embeddings": True}, "use_absolute_embeddings is true"),
    (SWIN | {"depths": 3}, "depths is 3; a list of numbers"),
])  # fmt: skip
def test_what_timm_has_not_is_refused_in_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        described(**changes)
    assert str(caught.value).startswith("config.json: ")
    assert str(caught.value).isprintable()


@given(width=st.integers(1, 4096), hidden=st.integers(1, 20_000))
def test_the_ratio_gives_as_many_neurons(width: int, hidden: int) -> None:
    assert int(width * _ratio(width, hidden)) == hidden


def test_settings_of_a_part_are_found() -> None:
    assert Config({"vision_config": {"a": 3}}, "c").part("vision_config").whole("a") == 3
    assert Config({"a": 4}, "c").part("vision_config").whole("a") == 4


def test_timm_s_own_config_is_no_model_of_the_library() -> None:
    assert is_kind({"model_type": "vit"})
    assert not is_kind({"model_type": "timm_wrapper", "architecture": "vit_tiny_patch16_224"})
    assert not is_kind({})
