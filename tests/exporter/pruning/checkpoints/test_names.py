"""Names of `transformers`: both of its layouts become the same tensors of timm, and nothing is left unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers_models import BACKBONES, CLASSIFIERS, MODELS, drawn, of_four, written

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.names import Style, prefix_of, regrid, rename

VIT = CLASSIFIERS["ViT"]


@pytest.mark.parametrize("name", MODELS)
def test_the_names_of_4_x_that_are_rebuilt_here_are_those_that_the_library_writes(tmp_path: Path, name: str) -> None:
    model = drawn(MODELS[name])
    rebuilt, theirs = of_four(dict(model.state_dict())), written(model, tmp_path)
    assert rebuilt.keys() == theirs.keys()
    assert all(torch.equal(rebuilt[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(("names", "prefix"), [
    (["vit.embeddings.patch_embeddings.projection.weight", "classifier.weight"], "vit."),
    (["embeddings.patch_embedding.weight"], ""),
    (["model.vision_model.embeddings.patch_embedding.weight"], "model.vision_model."),
    (["patch_embed.proj.weight", "blocks.0.norm1.weight"], None),
    ([], None),
])  # fmt: skip
def test_the_prefix_is_found_by_the_patch_embedding(names: list[str], prefix: str | None) -> None:
    assert prefix_of({name: torch.zeros(1) for name in names}) == prefix


def test_two_towers_are_refused() -> None:
    names = ("a.embeddings.patch_embedding.weight", "b.embeddings.patch_embedding.weight")
    with pytest.raises(InputError, match=r"there are several image models \(a\., b\.\)"):
        prefix_of({name: torch.zeros(1) for name in names})


def test_query_key_and_value_stand_one_after_the_other() -> None:
    state = drawn(VIT).state_dict()
    made = rename(state, "vit.", Style(), "w").held
    thirds = made["blocks.1.attn.qkv.weight"].chunk(3)
    for third, one in zip(thirds, "qkv", strict=True):
        assert torch.equal(third, state[f"vit.layers.1.attention.{one}_proj.weight"])


def test_a_missing_key_is_refused_by_name() -> None:
    state = drawn(VIT).state_dict()
    del state["vit.layers.1.attention.k_proj.weight"]
    with pytest.raises(InputError, match=r"w has vit\.layers\.1\.attention\.\w_proj\.weight, but no key beside it"):
        rename(state, "vit.", Style(), "w")


def test_a_missing_half_of_a_gated_mlp_is_refused_by_name() -> None:
    state = drawn(BACKBONES["DINOv2, gated"]).state_dict()
    del state["encoder.layer.1.mlp.up_proj.weight"]
    with pytest.raises(InputError, match=r"w has blocks\.1\.mlp\.gate\.weight, but no blocks\.1\.mlp\.up\.weight"):
        rename(state, "", Style(gated="packed"), "w")


def test_a_tensor_that_is_there_twice_is_refused() -> None:
    state = drawn(VIT).state_dict()
    state["vit.encoder.layer.0.intermediate.dense.bias"] = torch.zeros(64)
    with pytest.raises(InputError, match="is there twice, under two names"):
        rename(state, "vit.", Style(), "w")


def test_what_has_no_place_keeps_its_name_and_what_is_unused_is_told() -> None:
    state = {**drawn(BACKBONES["ViT"]).state_dict(), "layers.0.adapter.weight": torch.ones(2), "extra": torch.ones(1)}
    made = rename(state, "", Style(), "w")
    assert {"layers.0.adapter.weight", "extra"} <= made.held.keys()
    assert sorted(made.left_out) == ["pooler.dense.bias", "pooler.dense.weight"]


def test_positions_are_resampled_as_the_library_does() -> None:
    model = drawn(BACKBONES["DINOv2"])
    table = model.state_dict()["embeddings.position_embeddings"]
    theirs = model.embeddings.interpolate_pos_encoding(torch.zeros(1, 25, 32), 48, 32).detach()
    assert torch.equal(regrid(table, 1, (6, 4), False), theirs)
    assert regrid(table, 1, (4, 4), False) is table
    assert regrid(table[:, :-1], 1, (3, 3), False).shape == table[:, :-1].shape  # no square
