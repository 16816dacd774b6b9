"""Arguments of models: what is refused by name, and which ones a checkpoint asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, ends_in_a_line, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.pruning.arguments import check_args, check_size
from vitrim.exporter.pruning.load import create_model
from vitrim.recipes.schema.load import parse_yaml

NAME = "vit_tiny_patch16_224"


def make(**args: Any) -> Any:
    return create_model(NAME, args={**SMALL, **args}, random=0)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"depth": -1}, r"model\.args\.depth is -1; it lies from 1 to 1024"),
        ({"depth": 0}, r"depth is 0"),
        ({"depth": 10**9}, r"depth is 1000000000; it lies from 1 to 1024"),
        ({"depth": 1.5}, r"depth is 1\.5; give a whole number"),
        ({"depth": float("nan")}, r"depth is nan"),
        ({"depth": "x"}, r"depth is 'x'; give a whole number"),
        ({"depth": True}, r"depth is True; give a whole number"),
        ({"num_heads": 0}, r"num_heads is 0; it lies from 1"),
        ({"num_heads": 7}, r"timm cannot make"),
        ({"embed_dim": 1e9}, r"embed_dim is 1000000000\.0; give a whole number"),
        ({"embed_dim": -48}, r"embed_dim is -48"),
        ({"img_size": 10**30}, r"img_size is 1000+"),
        ({"img_size": [64, -1]}, r"img_size is -1"),
        ({"img_size": [[64]]}, r"timm cannot make"),
        ({"img_size": {"a": {"b": {"c": {"d": {"e": 1}}}}}}, r"is nested too deeply"),
        ({"patch_size": 0}, r"patch_size is 0"),
        ({"num_classes": -5}, r"num_classes is -5; it lies from 0"),
        ({"mlp_ratio": float("inf")}, r"mlp_ratio is inf"),
        ({"drop_rate": 2}, r"timm cannot make"),
        ({"qkv_bias": "false"}, r"qkv_bias is 'false'; give true or false"),
        ({"no_embed_class": 1}, r"no_embed_class is 1; give true or false"),
        ({"reg_tokens": True}, r"reg_tokens is True; give a whole number"),
        ({"fc_norm": [1]}, r"fc_norm is \[1\]; give true or false"),
        ({"act_layer": "os.system"}, r"timm cannot make .*KeyError"),
        ({"norm_layer": "torch.nn.LayerNorm"}, r"timm cannot make"),
        ({"norm_layer": "batchnorm2d"}, r"timm cannot make"),
        ({"block_fn": "builtins.exec"}, r"timm cannot make"),
        ({"attn_layer": "x"}, r"timm cannot make"),
        ({"embed_layer": [1]}, r"timm cannot make"),
        ({"global_pool": "x\x1b[31m"}, r"timm cannot make"),
        ({"nonsense": 5}, r"timm cannot make.*nonsense"),
        ({"x" * 5000: 5}, r"timm cannot make"),
        ({"checkpoint_path": "w.pth"}, r"checkpoint_path is not taken: that is said by model\.checkpoint; take it out"),
        ({"pretrained": True}, r"pretrained is not taken: that is said by model\.pretrained"),
        ({"pretrained_cfg": {"url": "http://x"}}, r"pretrained_cfg is not taken"),
        ({"pretrained_cfg_overlay": {"file": "x"}}, r"pretrained_cfg_overlay is not taken"),
        ({"cache_dir": "/tmp"}, r"cache_dir is not taken"),
        ({"features_only": True}, r"features_only is not taken"),
        ({"model_name": "x"}, r"model_name is not taken: that is said by model\.name"),
        ({"scriptable": True}, r"scriptable is not taken"),
    ],
)  # fmt: skip
def test_silly_arguments_are_refused_in_one_line(args: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make(**args)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_sensible_arguments_are_taken() -> None:
    assert len(make(depth=2, num_heads=2, qkv_bias=False, init_values=1e-5, reg_tokens=2, act_layer="gelu").blocks) == 2
    swin = create_model("swin_tiny_patch4_window7_224", args={"depths": [1, 1], "num_heads": [1, 2]}, random=0)
    assert len(swin.layers) == 2  # lists, where a model has a number for each of its stages
    check_args({"img_size": [224, 224], "global_pool": "avg", "drop_rate": 0.1, "init_values": None})


def test_a_model_that_does_not_fit_in_memory_is_weighed_first() -> None:
    def huge() -> Any:
        return torch.nn.Linear(1 << 20, 1 << 20)

    with pytest.raises(EnvironmentLackError, match=r"asks for a model of 4398\.1 GB, and this machine has"):
        check_size({"embed_dim": 1 << 20}, huge)
    check_size({"embed_dim": 64}, huge)  # small numbers are not weighed
    with pytest.raises(EnvironmentLackError, match=r"asks for a model of \d+\.\d GB"):
        make(embed_dim=65535)


FITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"num_classes": 10}, {"num_classes": 10}),
    ({"depth": 6}, {"depth": 6}),
    ({"depth": 2, "num_classes": 3}, {"num_classes": 3, "depth": 2}),
    ({"embed_dim": 96}, {"embed_dim": 96}),
    ({"reg_tokens": 4}, {"reg_tokens": 4}),
    ({"reg_tokens": 4, "img_size": 96}, {"reg_tokens": 4, "img_size": 96}),
    ({"class_token": False, "global_pool": "avg"}, {"class_token": False, "global_pool": "avg"}),
    ({"global_pool": "avg"}, {"global_pool": "avg"}),
    ({"qkv_bias": False}, {"qkv_bias": False}),
    ({"qk_norm": True}, {"qk_norm": True}),
    ({"init_values": 0.1}, {"init_values": 1e-05}),
    ({"mlp_ratio": 2.0}, {"mlp_ratio": 2.0}),
    ({"in_chans": 1}, {"in_chans": 1}),
]


@pytest.mark.parametrize(("theirs", "said"), FITS)
def test_a_checkpoint_says_the_arguments_that_it_fits_with(
    tmp_path: Path, theirs: dict[str, Any], said: dict[str, Any]
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({key: value.contiguous() for key, value in small_vit(**theirs).state_dict().items()}, path)
    with pytest.raises(InputError, match=r"; it fits with model\.args: \{.*\}") as caught:
        create_model(NAME, args=SMALL, checkpoint=path)
    text = str(caught.value).partition("model.args: ")[2].partition("}")[0] + "}"
    found = parse_yaml(f"args: {text}", "the advice")["args"]
    assert found == {**SMALL, **said}
    assert ("num_heads is not told by weights" in str(caught.value)) == ("embed_dim" in theirs)
    create_model(NAME, args=found, checkpoint=path)


def test_a_table_of_positions_that_is_resampled_says_its_arguments_too(tmp_path: Path) -> None:
    path, said = tmp_path / "w.safetensors", list[str]()
    for theirs in ({"img_size": 96}, {"img_size": 32, "patch_size": 8}):
        save_file(small_vit(**theirs).state_dict(), path)
        create_model(NAME, args=SMALL, checkpoint=path, note=said.append)
        text = said[-1].partition("model.args: ")[2].partition("}")[0] + "}"
        found = parse_yaml(f"args: {text}", "the advice")["args"]
        assert found == {**SMALL, **theirs}
        create_model(NAME, args=found, checkpoint=path, note=said.append)
    assert len(said) == 2


def test_a_checkpoint_of_another_family_gets_no_made_up_advice(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = small_vit().state_dict()
    state["extra.weight"] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(InputError, match="1 unknown, such as extra.weight; name the model that it was saved from"):
        create_model(NAME, args=SMALL, checkpoint=path)
    state = small_vit().state_dict()
    state["pos_embed"] = torch.zeros(1, 12, 48)  # no square
    save_file(state, path)
    with pytest.raises(InputError, match="name the model that it was saved from, with its args"):
        create_model(NAME, args=SMALL, checkpoint=path)


KNOWN = (
    "img_size patch_size embed_dim depth num_heads num_classes in_chans mlp_ratio class_token reg_tokens global_pool "
    "norm_layer act_layer qkv_bias init_values drop_rate pretrained_cfg"
)
KEYS = st.sampled_from(KNOWN.split()) | st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 8) | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([1e9, 10**9, 2**63, "gelu", "layernorm", "os.system", "avg", "\x1b[31m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=2))
def test_any_arguments_end_in_a_model_or_one_line(args: dict[str, Any]) -> None:
    ends_in_a_line(lambda: make(**{"depth": 1, **args}))
