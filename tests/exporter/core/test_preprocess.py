"""Pixels and a model's input, both ways: numbers by hand, timm's transform to the bit, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.sources import EightBit
from vitrim.calibration.images.transform import make_transform
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess, channel_constants, from_pixels, to_pixels


def preprocess_for(
    channels: int = 3, mean: Any = (0.485, 0.456, 0.406), std: Any = (0.229, 0.224, 0.225)
) -> Preprocess:
    return Preprocess((channels, 32, 32), tuple(mean), tuple(std), "bicubic", 1.0, "center")


def draw_pixels(preprocess: Preprocess, batch: int, seed: int = 0) -> np.ndarray:
    channels, height, width = preprocess.input_size
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def test_pixels_and_back_is_the_transform_to_the_bit() -> None:
    preprocess = preprocess_for()
    pixels = draw_pixels(preprocess, 4)
    timms: Any = create_transform(**preprocess.to_dict(), is_training=False)
    wanted = np.stack([np.asarray(timms(Image.fromarray(picture))) for picture in pixels])
    images = from_pixels(pixels, preprocess)
    assert (images == wanted).all()
    assert (to_pixels(images, preprocess) == pixels).all()
    source = EightBit(ArrayImages(pixels, np.arange(4), preprocess, "test"), preprocess)
    assert (source.read(2) == wanted[2]).all()
    assert source.labels is not None
    assert source.fingerprint() != source.source.fingerprint()


def test_noise_comes_onto_the_grid_and_stays() -> None:
    preprocess = preprocess_for(mean=(0.5, 0.4, 0.3))
    noise = 3 * np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    source = EightBit(ArrayImages(noise, None, preprocess, "noise"), preprocess)
    rounded = source.read(1)[None]
    assert (from_pixels(to_pixels(rounded, preprocess), preprocess) == rounded).all()
    mean, std = (np.array(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    inside = (noise[1] * std + mean).clip(0, 1)
    assert np.abs((rounded[0] * std + mean) - inside).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.5, 0.5, 0.5), (0.5, 0.0, 0.5))])
def test_constants_that_do_not_fit_are_refused(mean: Any, std: Any) -> None:
    with pytest.raises(InputError, match=r"model\.preprocess"):
        to_pixels(np.zeros((1, 3, 2, 2), np.float32), preprocess_for(3, mean, std))


def test_numbers_by_hand() -> None:
    preprocess = Preprocess((2, 1, 3), (0.5, 0.25), (0.5, 0.125), "bicubic", 0.9, "center")
    pixels = np.array([[[[0, 255], [51, 0], [255, 102]]]], dtype=np.uint8)  # one row of three pixels, two channels
    images = from_pixels(pixels, preprocess)
    assert (images.shape, images.dtype) == ((1, 2, 1, 3), np.float32)
    np.testing.assert_allclose(images[0, 0, 0], [-1, (0.2 - 0.5) / 0.5, 1], rtol=1e-6)
    np.testing.assert_allclose(images[0, 1, 0], [0.75 / 0.125, -0.25 / 0.125, 0.15 / 0.125], rtol=1e-6)
    assert images.flags.c_contiguous


def test_what_no_pixel_can_say_is_rounded_and_clipped() -> None:
    preprocess = Preprocess((1, 1, 5), (0.5,), (0.25,), "bicubic", 0.9, "center")
    asked = np.array([-3.0, 10.4, 10.6, 254.4, 900.0])
    images = ((asked / 255 - 0.5) / 0.25).astype(np.float32).reshape(1, 1, 1, 5)
    pixels = to_pixels(images, preprocess)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (1, 1, 5, 1))
    assert pixels.flatten().tolist() == [0, 10, 11, 254, 255]


@settings(max_examples=50, deadline=None)
@given(mean=st.lists(st.floats(0, 1), min_size=3, max_size=3), std=st.lists(st.floats(0.05, 1), min_size=3, max_size=3))
def test_every_pixel_value_survives_the_way_there_and_back(mean: list[float], std: list[float]) -> None:
    preprocess = preprocess_for(3, mean, std)
    values = np.arange(256, dtype=np.uint8)
    pixels = np.stack([values, values[::-1], np.roll(values, 7)], -1).reshape(1, 16, 16, 3)
    assert (to_pixels(from_pixels(pixels, preprocess), preprocess) == pixels).all()


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (
            (0.5,),
            (0.5,) * 3,
            "model.preprocess.mean has 1 value, but the model 3 channels; give one for each, such as [0.5, 0.5, 0.5]",
        ),
        (
            (0.5,) * 3,
            (0.4,) * 2,
            "model.preprocess.std has 2 values, but the model 3 channels; give one for each, such as [0.4, 0.4, 0.4]",
        ),
        ((0.5,) * 3, (0.5, 0, 0.5), "model.preprocess.std is [0.5, 0.0, 0.5]; deviations must be above 0"),
        ((0.5,) * 3, (0.5, -1, 0.5), "model.preprocess.std is [0.5, -1.0, 0.5]; deviations must be above 0"),
        ((0.5, -0.1, 0.5), (0.5,) * 3, "model.preprocess.mean is [0.5, -0.1, 0.5]; means lie from 0 to 1"),
        (
            (0.5,) * 3,
            (0.5, float("nan"), 0.5),
            "model.preprocess.std is [0.5, nan, 0.5]; give a number for every channel",
        ),
        (
            (float("inf"), 0.5, 0.5),
            (0.5,) * 3,
            "model.preprocess.mean is [inf, 0.5, 0.5]; give a number for every channel",
        ),
        (
            (123.675, 116.28, 103.53),
            (0.5,) * 3,
            "model.preprocess.mean is [123.675, 116.28, 103.53], but pixels count from 0 to 1 here; of pixels from 0 "
            "to 255 it is [0.485, 0.456, 0.406]",
        ),
        (
            (0.5,) * 3,
            (58.395, 57.12, 57.375),
            "model.preprocess.std is [58.395, 57.12, 57.375], but pixels count from 0 to 1 here; of pixels from 0 to "
            "255 it is [0.229, 0.224, 0.225]",
        ),
        (
            (0.5, 0.5, 1e9),
            (0.5,) * 3,
            "model.preprocess.mean is [0.5, 0.5, 1000000000.0], but pixels count from 0 to 1 here",
        ),
        (
            (0.5,) * 3,
            (0.5, 0.5, 1e-6),
            "model.preprocess.std is [0.5, 0.5, 1e-06]; pixels of 8 bits have steps of 0.0039, give more",
        ),
    ],
)
def test_a_refusal_says_what_was_found(mean: Any, std: Any, said: str) -> None:
    for use in (
        channel_constants,
        make_transform,
        lambda preprocess: from_pixels(np.zeros((1, 2, 2, 3), np.uint8), preprocess),
    ):
        with pytest.raises(InputError) as caught:
            use(preprocess_for(3, mean, std))
        assert str(caught.value) == said


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.0,) * 3, (1.0,) * 3),
        ((0.0,) * 3, (1 / 255,) * 3),
        ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)),
        ((1.0, 0.0, 0.5), (1.0, 0.004, 0.5)),
    ],
)
def test_constants_that_models_have_are_taken(mean: Any, std: Any) -> None:
    found = channel_constants(preprocess_for(3, mean, std))
    assert [list(values) for values in found] == [list(mean), list(std)]


def test_a_manifest_can_hold_it() -> None:
    preprocess = preprocess_for()
    found = json.loads(json.dumps(preprocess.to_dict()))
    assert found == {
        "input_size": [3, 32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }


def test_preprocessing_comes_back_from_json() -> None:
    own = Preprocess((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic", 0.9, "center")
    assert Preprocess.from_dict(json.loads(json.dumps(own.to_dict()))) == own
