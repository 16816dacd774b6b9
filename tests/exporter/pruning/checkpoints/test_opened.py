"""Folders of `transformers` and timm: the outputs are those of the library, and what does not fit is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import random_widths
from safetensors.torch import load_file, save_file
from transformers_models import BACKBONES, CLASSIFIERS, MODELS, UNFIT, drawn, outputs, saved, transformers

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.opened import open_checkpoint
from vitrim.exporter.pruning.checkpoints.tensors import Choice
from vitrim.exporter.pruning.load import (
    _load_checkpoint,
    create_model,
    fingerprint,
    labels_of,
    preprocessing,
    save_slimmed,
)
from vitrim.exporter.pruning.slim import slim

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
CLOSE = 1e-5  # of the largest output


def opened(folder: Path, said: list[str] | None = None, **args: Any) -> Any:
    """The model of a folder, with a classifier or none."""
    note = (said if said is not None else []).append
    found = open_checkpoint(folder, None, args, Choice(), note)

    def make(arguments: Any) -> Any:
        return timm.create_model(found.name, **arguments)

    return _load_checkpoint(make(found.args), found, make, Choice(), note).eval()


def said_by(model: Any, images: torch.Tensor = IMAGES) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(images)
    return found


@pytest.mark.parametrize("form", ["4.x", "5.x"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_library(tmp_path: Path, name: str, form: str) -> None:
    theirs = drawn(MODELS[name])
    wanted = outputs(theirs, IMAGES)
    mine = said_by(opened(saved(theirs, tmp_path, form)))
    assert mine.shape == wanted.shape
    assert float((mine - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_made_without_a_name(tmp_path: Path, name: str) -> None:
    theirs = drawn(CLASSIFIERS[name])
    model = create_model(None, checkpoint=saved(theirs, tmp_path))
    wanted = outputs(theirs, IMAGES)
    assert float((said_by(model) - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())


def test_without_its_epsilon_and_activation_a_model_would_be_another(tmp_path: Path) -> None:
    """What the two tests above would not notice, if it made no difference."""
    theirs = drawn(CLASSIFIERS["ViT, tanh GELU"])
    with torch.no_grad():
        theirs.vit.embeddings.patch_embeddings.projection.weight.mul_(1e-3)
        for key in ("cls_token", "position_embeddings"):
            getattr(theirs.vit.embeddings, key).mul_(1e-3)
        theirs.vit.embeddings.patch_embeddings.projection.bias.mul_(1e-3)
    folder, wanted = saved(theirs, tmp_path), outputs(theirs, IMAGES)
    limit = CLOSE * float(wanted.abs().max())
    assert float((said_by(opened(folder)) - wanted).abs().max()) <= limit
    config = json.loads((folder / "config.json").read_text())
    for key, value in (("layer_norm_eps", 1e-6), ("hidden_act", "gelu")):
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        assert float((said_by(opened(folder)) - wanted).abs().max()) > limit


def test_labels_and_photos_come_from_the_folder(tmp_path: Path) -> None:
    folder = saved(drawn(CLASSIFIERS["ViT"]), tmp_path)
    said: list[str] = []
    assert opened(folder, said).pretrained_cfg["label_names"] == ["cat", "dog", "emu"]
    assert any("no preprocessor_config.json lies beside it" in text for text in said)
    settings = {
        "size": {"height": 40, "width": 40},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5] * 3,
        "resample": 3,
    }
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | crop))
    said.clear()
    found = preprocessing(opened(folder, said))
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert (found.input_size, found.interpolation) == ((3, 32, 32), "bicubic")
    assert (found.crop_pct, found.crop_mode) == (0.8, "squash")
    assert said == []
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    opened(folder, said)
    assert any("makes photos of 40 x 40; 32 x 32 are made here" in text for text in said)


@pytest.mark.parametrize("name", ["DINOv2", "DINOv2 with registers", "DINOv3 ViT"])
def test_a_model_of_any_image_size_is_that_of_its_photos(tmp_path: Path, name: str) -> None:
    theirs = drawn(BACKBONES[name])
    folder = saved(theirs, tmp_path)
    settings = {"size": {"height": 48, "width": 48}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    said: list[str] = []
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(4))
    wanted, mine = outputs(theirs, images), said_by(opened(folder, said), images)
    assert float((mine - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())
    assert any("resampled as `transformers` does" in text for text in said) is (name != "DINOv3 ViT")


def test_a_classifier_that_timm_has_not_is_refused_and_its_features_are_taken(tmp_path: Path) -> None:
    theirs = drawn(UNFIT)
    folder = saved(theirs, tmp_path)
    with pytest.raises(InputError, match=r"reads the class token beside the mean .* model\.args: \{num_classes: 0\}"):
        create_model(None, checkpoint=folder)
    wanted = outputs(theirs.dinov2, IMAGES)
    assert float((said_by(opened(folder, num_classes=0)) - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())


def test_a_backbone_gives_features_and_no_classifier_is_made_up(tmp_path: Path) -> None:
    theirs = drawn(BACKBONES["ViT"])
    folder = saved(theirs, tmp_path)
    model = create_model(None, checkpoint=folder)
    assert model.num_classes == 0
    with torch.inference_mode():
        assert torch.allclose(model(IMAGES), theirs(IMAGES).last_hidden_state[:, 0], atol=1e-5)
    with pytest.raises(InputError, match="it has no classifier, and vitrim makes none up"):
        create_model(None, checkpoint=folder, args={"num_classes": 5})


def test_a_checkpoint_in_parts_is_read_as_one(tmp_path: Path) -> None:
    theirs = drawn(CLASSIFIERS["ViT"])
    folder = saved(theirs, tmp_path)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    for at, part in enumerate((names[::2], names[1::2])):
        save_file({key: state[key] for key in part}, folder / f"model-{at}.safetensors")
    listed = {key: f"model-{at % 2}.safetensors" for at, key in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    assert torch.allclose(said_by(opened(folder)), outputs(theirs, IMAGES), atol=1e-6)


@pytest.mark.parametrize("form", ["timm", "timm_wrapper"])
def test_a_folder_of_timm_says_its_model(tmp_path: Path, form: str) -> None:
    args = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3}
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, **args).eval()
    if form == "timm":
        timm.models.save_for_hf(theirs, tmp_path, {"label_names": ["a", "b", "c"]}, model_args=args)
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"label_names": ["a", "b", "c"]}))
    else:
        own = {"mean": [0.1, 0.2, 0.3], "label_names": ["a", "b", "c"]}
        settings = transformers.TimmWrapperConfig(
            architecture="vit_tiny_patch16_224", model_args=args, num_labels=3, pretrained_cfg=own
        )
        wrapped = transformers.TimmWrapperForImageClassification(settings)
        wrapped.timm_model.load_state_dict(theirs.state_dict())
        wrapped.save_pretrained(tmp_path)
    model = create_model(None, checkpoint=tmp_path)
    assert torch.equal(said_by(model), said_by(theirs))
    if form == "timm_wrapper":
        assert preprocessing(model).mean == (0.1, 0.2, 0.3)
    with pytest.raises(InputError, match="architecture is vit_tiny_patch16_224, not deit_tiny_patch16_224"):
        create_model("deit_tiny_patch16_224", checkpoint=tmp_path)


@pytest.mark.parametrize(("changed", "said"), [
    ({"name": "beit_base_patch16_224"}, r"says a model such as vit_base_patch16_224, not beit_base_patch16_224"),
    ({"extra": True}, r"1 unknown, such as vit\.layers\.0\.adapter\.weight"),
    ({"config": None}, r"has names of `transformers`, and no config\.json"),
    ({"lacking": "vit.layers.1.mlp.fc1.bias"}, r"1 missing, such as blocks\.1\.mlp\.fc1\.bias"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    folder = saved(drawn(CLASSIFIERS["ViT"]), tmp_path)
    state = load_file(folder / "model.safetensors")
    state |= {"vit.layers.0.adapter.weight": torch.ones(2)} if "extra" in changed else {}
    state.pop(changed.get("lacking", ""), None)
    save_file(state, folder / "model.safetensors")
    if "config" in changed:
        (folder / "config.json").unlink()
    with pytest.raises(InputError, match=said) as caught:
        create_model(changed.get("name"), checkpoint=folder)
    assert str(caught.value).isprintable()


def test_a_bare_file_needs_a_name(tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"model\.name is missing, and nothing beside"):
        create_model(None, checkpoint=tmp_path / "w.safetensors")


def test_a_slimmed_checkpoint_carries_what_the_folder_said(tmp_path: Path) -> None:
    folder = saved(drawn(CLASSIFIERS["CLIP, classifier"]), tmp_path / "model")
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    model: Any = create_model(None, checkpoint=folder)
    widths = random_widths(model)
    slimmed = slim(model, widths, "w")
    save_slimmed(slimmed, widths, tmp_path / "slim.safetensors")
    again: Any = create_model(None, checkpoint=tmp_path / "slim.safetensors")
    assert torch.equal(said_by(again), said_by(slimmed))
    assert preprocessing(again) == preprocessing(model)
    assert labels_of(again) == ["cat", "dog", "emu"]


def test_a_config_is_a_part_of_the_fingerprint(tmp_path: Path) -> None:
    """Same weights with another activation are another model, and no cache may take one for the other."""
    folder = saved(drawn(CLASSIFIERS["ViT"]), tmp_path)
    before = fingerprint(opened(folder))
    assert before == fingerprint(opened(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}))
    assert before != fingerprint(opened(folder))


def test_the_page_has_a_row_for_every_model_with_its_name_in_timm(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "models.md").read_text().partition("## Hugging Face")[2]
    rows = dict(re.findall(r"^\| (.+?) \| equal \| `(.+?)` \|$", page, re.MULTILINE))
    found = {}
    for name, make in MODELS.items():
        place = saved(make(), tmp_path / str(len(found)))
        found[name] = open_checkpoint(place, None, {}, Choice(), lambda text: None).name
    assert rows == found
