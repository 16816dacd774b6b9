"""Loading models and checkpoints: what works, and one clear line for what does not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, small_vit
from safetensors.torch import save_file

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model, fingerprint, preprocessing
from vitrim.exporter.pruning.shape import describe


def load(path: Path, **args: Any) -> Any:
    return create_model("vit_tiny_patch16_224", args={**SMALL, **args}, checkpoint=path)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(small_vit(seed=5).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_safetensors_and_pytorch_checkpoints_load(weights: Path, tmp_path: Path) -> None:
    model = load(weights)
    assert fingerprint(model) == fingerprint(small_vit(seed=5))
    wrapped = {"model": {f"module.{key}": value for key, value in model.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "w.pth")
    assert fingerprint(load(tmp_path / "w.pth")) == fingerprint(model)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_another_model_s_checkpoint_is_refused_with_what_differs(weights: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"not a checkpoint of vit_tiny.*of other shapes, such as blocks.*\(48,\) where \(24,\)",
    ):
        load(weights, embed_dim=24)
    with pytest.raises(InputError, match=r"12 unknown, such as blocks\.3\."):
        load(weights, depth=3)
    with pytest.raises(InputError, match=r"8 missing, such as blocks\.0\.ls1\.gamma"):
        load(weights, init_values=0.1)


def test_truncated_checkpoints_are_named(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    for size in (7, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(InputError, match="it may be truncated: fetch it again"):
            load(weights)
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-500])
    with pytest.raises(InputError, match="it may be truncated; fetch it again"):
        load(tmp_path / "w.pth")


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": Payload(mark)}, tmp_path / "bad.pth")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Payload(mark)))
    for name in ("bad.pth", "bad.pkl"):
        with pytest.raises(InputError, match=r"could run code.*safetensors"):
            load(tmp_path / name)
    torch.save(small_vit(), tmp_path / "module.pth")
    with pytest.raises(InputError, match="could run code"):
        load(tmp_path / "module.pth")
    assert not mark.exists()


def test_checkpoints_without_tensors_or_with_nan(weights: Path, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list, not a state dict"):
        load(tmp_path / "list.pth")
    state = small_vit().state_dict()
    state["blocks.2.mlp.fc1.weight"][0, 0] = float("nan")
    save_file(state, weights)
    with pytest.raises(InputError, match=r"blocks\.2\.mlp\.fc1\.weight holds NaN"):
        load(weights)
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "none.safetensors")


def test_names_and_arguments() -> None:
    with pytest.raises(InputError, match=r"did you mean .*deit_tiny_patch16_224"):
        create_model("deit_tiny_patch16_22", random=0)
    with pytest.raises(InputError, match="exactly one of"):
        create_model("deit_tiny_patch16_224", random=0, pretrained=True)
    with pytest.raises(InputError, match="timm cannot make vit_tiny_patch16_224"):
        create_model("vit_tiny_patch16_224", args={"heads": 3}, random=0)
    with pytest.raises(InputError, match="timm cannot make"):
        create_model("vit_tiny_patch16_224", args={"embed_dim": 10, "num_heads": 3}, random=0)


def test_random_weights_follow_the_seed() -> None:
    assert fingerprint(small_vit(seed=1)) == fingerprint(small_vit(seed=1))
    assert fingerprint(small_vit(seed=1)) != fingerprint(small_vit(seed=2))


def test_preprocessing_of_deit_tiny() -> None:
    model = create_model("deit_tiny_patch16_224", random=0)
    prepared = preprocessing(model)
    assert prepared.mean == (0.485, 0.456, 0.406)
    assert (prepared.crop_pct, prepared.interpolation, prepared.input_size) == (0.9, "bicubic", (3, 224, 224))
    assert preprocessing(model, {"mean": [0.5, 0.5, 0.5], "std": None}).mean == (0.5, 0.5, 0.5)


def test_preprocessing_follows_the_image_size_of_the_model() -> None:
    assert preprocessing(small_vit()).input_size == (3, 64, 64)


def test_real_weights_load_strictly(data_folder: Path) -> None:
    for name in ("deit_tiny_patch16_224.fb_in1k", "vit_tiny_patch16_224.augreg"):
        model = create_model(name.split(".")[0], checkpoint=data_folder / f"{name}.safetensors")
        assert describe(model).classes == 1000
