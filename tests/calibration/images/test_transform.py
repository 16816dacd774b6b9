"""The transform without PyTorch is timm's to the bit, whatever the model says and whatever the photo's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from vitrim.calibration.images.transform import make_transform
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    crop=st.sampled_from(["center", "squash", "border"]),
    share=st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    way=st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos"]),
    gray=st.booleans(),
    of=st.tuples(st.integers(5, 120), st.integers(5, 120)),
    square=st.booleans(),
)
def test_it_is_timms_to_the_bit(
    size: tuple[int, int], crop: str, share: float, way: str, gray: bool, of: tuple[int, int], square: bool
) -> None:
    channels = 1 if gray else 3
    wanted = (channels, size[0], size[0] if square else size[1])
    preprocess = Preprocess(
        wanted, (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels], way, share, crop
    )
    source = photo(*of)
    theirs: Any = create_transform(**preprocess.to_dict(), is_training=False)
    expected = np.asarray(theirs(source.convert("L") if gray else source))
    found = make_transform(preprocess)(source)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_an_interpolation_that_nobody_knows_is_refused() -> None:
    preprocess = Preprocess((3, 8, 8), (0.5,) * 3, (0.5,) * 3, "cubist", 1.0, "center")
    with pytest.raises(InputError, match="^there is no interpolation 'cubist' .there are nearest, bilinear, bicubic,"):
        make_transform(preprocess)
