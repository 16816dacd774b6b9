"""Where a checkpoint lies: files, folders, parts of one, and names on the hub, which only its cache answers here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.pruning.checkpoints.hub import digest, is_hub_name, locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def filled(folder: Path, **files: object) -> Path:
    """A folder with weights, and JSON files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with one model of `main`; no network is asked."""
    import huggingface_hub.constants as constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = cache / "models--me--vit"
    filled(model / "snapshots" / COMMIT, config={"model_type": "vit"})
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return model


def test_a_folder_and_its_file_are_found_with_what_lies_beside_them(tmp_path: Path) -> None:
    filled(tmp_path, config={"model_type": "vit"}, processor_config={"image_processor": {"resample": 3}})
    for given, named in ((tmp_path, True), (tmp_path / "model.safetensors", False)):
        place = locate(given)
        assert place.weights == (tmp_path / "model.safetensors",)
        assert (place.config, place.images) == ({"model_type": "vit"}, {"resample": 3})
        assert place.named is named


def test_parts_are_found_by_their_index(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}})
    )
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(InputError, match=r"index\.json names two\.safetensors, which is not beside it"):
        locate(tmp_path)
    (tmp_path / "two.safetensors").touch()
    for given in (tmp_path, index):
        assert [part.name for part in locate(given).weights] == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize(
    "listed", ['{"weight_map": {"a": "../one.safetensors"}}', "{}", '{"weight_map": 5}', "[]", "{"]
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, listed: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(listed)
    with pytest.raises(InputError, match="names no files beside it|is not JSON|is no JSON object"):
        locate(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("{", r"config\.json is not JSON"), ("[]", r"config\.json is no JSON object")]
)
def test_a_damaged_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    filled(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=said):
        locate(tmp_path)


@pytest.mark.parametrize("scheme", ["hf-hub", "hf_hub"])
def test_a_name_is_found_in_the_cache_and_an_open_revision_is_said(hub: Path, scheme: str) -> None:
    said: list[str] = []
    place = locate(f"{scheme}:me/vit", said.append)
    assert (place.config, place.images, place.named) == ({"model_type": "vit"}, None, True)
    assert said == [f"{scheme}:me/vit: revision {COMMIT} is taken; pin it: hf-hub:me/vit@{COMMIT}"]


def test_a_pinned_revision_is_taken_without_a_word(hub: Path) -> None:
    said: list[str] = []
    assert locate(f"hf-hub:me/vit@{COMMIT}", said.append).folder.name == COMMIT
    assert said == []


@pytest.mark.parametrize("name", ["hf-hub:me/other", "hf-hub:me/vit@v2"])
def test_what_the_cache_has_not_says_what_to_do(hub: Path, name: str) -> None:
    with pytest.raises(EnvironmentLackError, match=r"cannot fetch me/.* give model: \{checkpoint: FOLDER\}"):
        locate(name)


def test_a_repository_without_weights_is_refused(hub: Path) -> None:
    (hub / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"me/vit on the hub holds none of model\.safetensors"):
        locate("hf-hub:me/vit")


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b", "hf-hub:../x", "hf-hub:me/vit@"])
def test_what_is_no_name_is_refused(hub: Path, name: str) -> None:
    assert is_hub_name(name)
    with pytest.raises(InputError, match="is no name on the hub"):
        locate(name)


def test_the_digest_is_of_all_that_says_what_the_model_is(hub: Path, tmp_path: Path) -> None:
    folder = filled(tmp_path / "model", config={"hidden_act": "gelu"})
    before = digest(folder)
    assert digest(folder / "model.safetensors") == sha256(folder / "model.safetensors")
    filled(folder, config={"hidden_act": "quick_gelu"})
    assert before is not None
    assert digest(folder) != before
    assert digest("hf-hub:me/vit") is None
    assert digest(tmp_path / "none") is None
