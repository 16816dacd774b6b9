"""What tensors look like: pixels of 0 to 255 are refused, doubtful ranges are told, normalized ones pass in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitrim.calibration.images.looks import check_layout, check_values, doubt, input_range
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess, from_pixels

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
UNIT = ((0.0,) * 3, (1.0,) * 3)
BYTES = ((0.0,) * 3, (1 / 255,) * 3)


def preprocess_of(constants: Any) -> Preprocess:
    return Preprocess((3, 16, 16), constants[0], constants[1], "bicubic", 1.0, "center")


def photos(count: int = 4, seed: int = 0, most: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (count, 16, 16, 3), dtype=np.uint8)


def looked(values: np.ndarray, constants: Any) -> str | None:
    preprocess = preprocess_of(constants)
    return doubt(*check_values(values, preprocess, "x"), preprocess, "x")


@pytest.mark.parametrize("constants", [IMAGENET, HALF, UNIT, BYTES])
def test_what_the_model_s_preprocessing_gives_passes_in_silence(constants: Any) -> None:
    assert looked(from_pixels(photos(), preprocess_of(constants)), constants) is None


@pytest.mark.parametrize("constants", [IMAGENET, HALF, UNIT])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("most", [256, 200, 30, 5])
def test_pixels_of_0_to_255_are_refused(constants: Any, dtype: Any, most: int) -> None:
    values = photos(most=most).transpose(0, 3, 1, 2).astype(dtype)
    with pytest.raises(InputError, match=r"^x holds values that look like pixels of 0 to 255.*\(pixels / 255 - mean\)"):
        check_values(values, preprocess_of(constants), "x")


def test_pixels_that_were_resized_are_refused_too() -> None:
    values = photos().transpose(0, 3, 1, 2).astype(np.float32) + np.float32(0.3)
    with pytest.raises(InputError, match="look like pixels of 0 to 255"):
        check_values(values, preprocess_of(IMAGENET), "x")
    with pytest.raises(InputError, match=r"reach from -127.* where the model's inputs lie from -2\.12 to 2\.64"):
        check_values(values - 127.5, preprocess_of(IMAGENET), "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    values = from_pixels(photos(), preprocess_of(HALF))
    values[3, 2, 15, 15] = bad
    with pytest.raises(InputError, match="^x holds NaN or Inf$"):
        check_values(values, preprocess_of(HALF), "x")


def test_doubtful_ranges_are_told() -> None:
    unit = photos().transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert str(looked(unit, IMAGENET)).startswith(
        "x: all values lie from 0 to 1, where the model's inputs lie from -2.12"
    )
    assert looked(unit, UNIT) is None
    assert looked(np.zeros((2, 3, 16, 16), np.float32), HALF) == "x: every value is 0"
    twice = from_pixels(photos(), preprocess_of(IMAGENET))
    mean, std = (np.array(values, np.float32)[:, None, None] for values in IMAGENET)
    assert "are they normalized as the model wants?" in str(looked((twice - mean) / std, IMAGENET))


def test_the_range_is_over_all_channels() -> None:
    assert input_range(preprocess_of(((0.5, 0.2, 0.0), (0.5, 0.1, 1.0)))) == pytest.approx((-2.0, 8.0))


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        (
            (2, 16, 16, 3),
            np.float32,
            r"got float32 \[2, 16, 16, 3\].*channels come last here: tr",
        ),
        ((2, 3, 16, 16), np.uint8, "these are integers, such as pixels: normalize them"),
        ((2, 3, 16, 16), np.int64, "these are integers"),
        ((2, 3, 8, 16), np.float32, r"the model takes float32 \[n, 3, 16, 16\], preprocessed; see timm"),
        ((2, 3, 16, 16), np.complex64, "got complex64"),
        ((), np.float32, r"got float32 \[\]"),
    ],
)
def test_another_layout_says_what_it_looks_like(shape: tuple[int, ...], dtype: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_layout(np.zeros(shape, dtype), preprocess_of(HALF), "got")


def test_the_model_s_layout_passes() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        check_layout(np.zeros((2, 3, 16, 16), dtype), preprocess_of(HALF), "got")
