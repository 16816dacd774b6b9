"""Loading models and checkpoints: what works, and one clear line for what does not."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, ends_in_a_line, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.pruning.load import create_model, fingerprint, preprocessing
from vitrim.exporter.pruning.shape import describe, image_size


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


def other_kinds() -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]]:
    """What training leaves in place of a weight, and how it is called."""
    return {
        "int64": (lambda value: value.long(), "is int64, but weights are float32, float16, bfloat16, float64; convert"),
        "int8": (lambda value: value.to(torch.int8), "is int8, but"),
        "uint8": (lambda value: value.to(torch.uint8), "is uint8, but"),
        "bool": (lambda value: value > 0, "is bool, but"),
        "complex64": (lambda value: value.to(torch.complex64), "is complex64, but"),
        "float8": (lambda value: value.to(torch.float8_e4m3fn), "is float8_e4m3fn, but"),
        "float8_e5m2": (lambda value: value.to(torch.float8_e5m2), "is float8_e5m2, but"),
        "sparse": (lambda value: value.to_sparse(), "is sparse; save plain tensors"),
        "csr": (lambda value: value.to_sparse_csr(), "is sparse"),
        "quantized": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "is quantized"),
        "meta": (lambda value: value.to("meta"), "is on meta, without numbers"),
        "float64 past float32": (lambda value: value.double() + 1e300, "holds numbers past float32"),
        "NaN": (lambda value: value * float("nan"), "holds NaN or Inf"),
        "NaN in float16": (lambda value: value.half() / 0, "holds NaN or Inf"),
    }


@pytest.mark.filterwarnings("ignore")  # PyTorch lets go of some of these kinds
@pytest.mark.parametrize("kind", other_kinds())
@pytest.mark.parametrize("container", ["w.pth", "w.safetensors"])
def test_what_is_no_weight_is_refused_by_name_and_type(tmp_path: Path, kind: str, container: str) -> None:
    make, said = other_kinds()[kind]
    state, key = small_vit().state_dict(), "blocks.1.mlp.fc1.weight"
    state[key] = make(state[key])
    plain = state[key].layout == torch.strided and not state[key].is_quantized and state[key].device.type == "cpu"
    if container == "w.safetensors" and not plain:
        pytest.skip("safetensors holds plain tensors alone")
    save: Any = torch.save if container == "w.pth" else save_file
    save(state, tmp_path / container)
    with pytest.raises(InputError, match=rf"{container}: blocks\.1\.mlp\.fc1\.weight {said}"):
        load(tmp_path / container)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in small_vit().state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    model = load(tmp_path / "w.pth")
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert torch.equal(model.head.weight, state["head.weight"].float())


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({}, r"holds no tensors; save model\.state_dict\(\)"),
        ({"epoch": 3, "optimizer": {}}, r"holds no tensors \(it holds epoch, optimizer\); save"),
        ({"\x1b[31m": 1}, r"it holds \\x1b\[31m"),
        ({"x" * 5000: 1}, r"it holds x+\.\.\."),
        (5, "holds a int, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({"a": torch.zeros(1), "module.a": torch.ones(1)}, "holds a twice, with and without `module.`"),
        ({"\x1b]0;x\x07": torch.zeros(1)}, r"1 unknown, such as \\x1b\]0;x\\x07"),
        ({5: torch.zeros(1)}, "1 unknown, such as 5"),
    ],
)
def test_what_lies_around_a_state_dict_is_named(tmp_path: Path, held: Any, said: str) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(InputError, match=said) as caught:
        load(tmp_path / "w.pth")
    assert str(caught.value).isprintable()


@functools.cache
def whole() -> tuple[bytes, ...]:
    """A small model as every kind of checkpoint."""
    state = small_vit(depth=1, embed_dim=24).state_dict()
    streams = io.BytesIO(), io.BytesIO()
    torch.save(state, streams[0])
    torch.save({"model": state}, streams[1], _use_new_zipfile_serialization=False)
    return (*(stream.getvalue() for stream in streams), save(state))


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    st.sampled_from((0, 1, 2)),
    st.sampled_from(("w.pth", "w.safetensors", "w.bin")),
    st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.02), st.binary(max_size=8)), max_size=4),
    st.floats(0, 1) | st.just(1.0),
)
def test_any_damage_ends_in_a_model_or_one_line(
    kind: int, name: str, changes: list[tuple[float, bytes]], left: float
) -> None:
    data = bytearray(whole()[kind])
    for place, new in changes:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data[: int(left * len(data))])
        ends_in_a_line(lambda: load(path, depth=1, embed_dim=24))


NUMBERS = st.sampled_from(
    [
        getattr(torch, name)
        for name in ["float32", "float16", "float64", "int64", "bool", "uint8", "complex64", "float8_e4m3fn"]
    ]
)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["head.weight", "head.bias", "cls_token", "pos_embed", "norm.weight", "x", "module.x"])
        | st.text(max_size=5),
        st.tuples(st.lists(st.integers(0, 5), max_size=3), NUMBERS) | st.none() | st.integers() | st.text(max_size=3),
        max_size=4,
    ),
    st.sampled_from(["", "model", "state_dict", "model_ema", "net"]),
)
def test_any_state_dict_ends_in_a_model_or_one_line(found: dict[str, Any], wrapped: str) -> None:
    held = dict(small_vit(depth=1, embed_dim=24).state_dict())
    for key, value in found.items():
        held[key] = torch.zeros(value[0]).to(value[1]) if isinstance(value, tuple) else value
    with tempfile.TemporaryDirectory() as folder:
        torch.save({wrapped: held} if wrapped else held, Path(folder) / "w.pth")
        ends_in_a_line(lambda: load(Path(folder) / "w.pth", depth=1, embed_dim=24))


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


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            {"mean": [0.5]},
            r"mean has 1 value, but the model 3 channels; give one for each, such as \[0\.5, 0\.5, 0\.5\]",
        ),
        ({"std": [0.2] * 4}, "std has 4 values, but the model 3 channels"),
        ({"mean": []}, "mean has 0 values"),
        ({"mean": [124.0, 116.0, 104.0]}, "of pixels from 0 to 255 it is"),
        ({"std": [0.5, 0.0, 0.5]}, "deviations must be above 0"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.preprocess\..*{said}"):
        preprocessing(small_vit(), overrides)


def test_a_model_in_memory_with_means_of_another_scale_is_refused() -> None:
    model = small_vit()
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (123.0, 116.0, 103.0)}
    with pytest.raises(InputError, match=r"^model\.preprocess\.mean is \[123\.0, 116\.0, 103\.0\], but pixels"):
        preprocessing(model)


def test_preprocessing_follows_the_image_size_of_the_model() -> None:
    assert preprocessing(small_vit()).input_size == (3, 64, 64)


def test_real_weights_load_strictly(data_folder: Path) -> None:
    for name in ("deit_tiny_patch16_224.fb_in1k", "vit_tiny_patch16_224.augreg"):
        model = create_model(name.split(".")[0], checkpoint=data_folder / f"{name}.safetensors")
        assert describe(model).classes == 1000


def test_a_model_that_keeps_no_size_of_images_says_the_one_it_was_made_for() -> None:
    args = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "num_classes": 7}
    model = create_model("hiera_tiny_224", args={**args, "img_size": 64}, random=0)
    assert image_size(model) == preprocessing(model).input_size == (3, 64, 64)
    assert image_size(create_model("hiera_tiny_224", args=args, random=0)) == (3, 224, 224)
    model.pretrained_cfg = {}
    with pytest.raises(UnsupportedError, match="Hiera does not say the size of its images, nor does its"):
        image_size(model)


def test_a_model_that_can_be_slimmed_with_a_classifier_says_so() -> None:
    with pytest.raises(
        UnsupportedError, match=r"it is a Hiera, .*; it is not slimmed, as it has no classifier .*give args"
    ):
        create_model("hiera_tiny_224", args={"num_classes": 0}, random=0)
