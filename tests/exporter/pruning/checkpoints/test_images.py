"""A preprocessor_config.json: photos come out as `transformers` makes them, and what timm cannot do is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers_models import transformers

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.checkpoints.images import _crop_pct, describe_images

VIT = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}


def described(**changes: Any) -> dict[str, Any]:
    return describe_images(VIT | {"size": {"height": 32, "width": 32}} | changes, "p.json")


@pytest.mark.parametrize("changes", [
    {},
    {"resample": 3},
    {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 3},
])  # fmt: skip
def test_photos_come_out_as_the_library_makes_them(changes: dict[str, Any]) -> None:
    """Both resize with Pillow; margins are even here, as the two round odd ones differently by a pixel."""
    settings = VIT | {"size": {"height": 32, "width": 32}} | changes
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    kwargs = {key: value for key, value in settings.items() if key != "image_processor_type"}
    processor = transformers.CLIPImageProcessorPil(**({"do_center_crop": False, "do_convert_rgb": False} | kwargs))
    theirs = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    found = described(**changes)
    size = found.pop("size")
    transform: Any = timm.data.create_transform(input_size=(3, *size), is_training=False, **found)
    mine = transform(Image.fromarray(pixels))
    assert mine.shape == theirs.shape
    assert float((mine - theirs).abs().max()) <= 1.01 * 2 / 255  # one step of 8 bits


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"size": 224}, {"crop_pct": 1.0, "crop_mode": "squash", "size": [224, 224]}),
    (
        {"size": 256, "crop_size": 224, "do_center_crop": True, "feature_extractor_type": "DeiTFeatureExtractor"},
        {"crop_pct": 0.875, "crop_mode": "squash", "size": [224, 224]},
    ),
    (
        {"size": 224, "crop_size": 224, "do_center_crop": True, "image_processor_type": "CLIPFeatureExtractor"},
        {"crop_pct": 1.0, "crop_mode": "center", "size": [224, 224]},
    ),
    ({"size": {"height": 32, "width": 64}}, {"crop_pct": 1.0, "crop_mode": "squash", "size": [32, 64]}),
    ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    ({"resample": 1}, {"interpolation": "lanczos"}),
])  # fmt: skip
def test_sizes_of_every_age_are_read(changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert wanted.items() <= described(**changes).items()


def test_what_is_not_said_is_left_to_timm() -> None:
    assert describe_images({"resample": 3, "do_resize": False}, "p.json") == {"interpolation": "bicubic"}


@pytest.mark.parametrize(("changes", "said"), [
    ({"rescale_factor": 1 / 127.5}, "rescale_factor is not 1/255"),
    ({"do_rescale": False}, "rescale_factor is not 1/255"),
    ({"rescale_factor": "x"}, "rescale_factor is 'x'; a number"),
    ({"resample": 5}, "resample is 5"),
    ({"resample": "bicubic"}, "resample is 'bicubic'"),
    ({"image_mean": "imagenet"}, "image_mean is 'imagenet'"),
    ({"size": {"shortest_edge": 224}}, "images come in every shape"),
    ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "size is .*height and width, or shortest_edge"),
    ({"crop_size": {"height": 64, "width": 64}, "do_center_crop": True}, r"crop_size \[64, 64\] of size \[32, 32\]"),
    ({"crop_size": {"height": 16, "width": 32}, "do_center_crop": True}, r"crop_size \[16, 32\] of size \[32, 32\]"),
])  # fmt: skip
def test_what_timm_does_not_do_is_refused_in_a_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        described(**changes)
    assert str(caught.value).startswith("p.json: ")


@given(inner=st.integers(1, 2048), outer=st.integers(1, 2048))
def test_the_share_gives_the_very_size(inner: int, outer: int) -> None:
    assert int(inner / _crop_pct(inner, outer)) == outer
