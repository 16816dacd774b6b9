"""Photos of every kind, opened as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.photos import open_photo
from vitrim.calibration.images.sources import read_all
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess

PLAIN = Preprocess((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0, "center")


def ramp(width: int = 40, height: int = 30) -> np.ndarray:
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))


def test_modes_become_eight_bit_rgb(tmp_path: Path) -> None:
    gray = Image.fromarray(ramp())
    gray.save(tmp_path / "gray.png")
    gray.convert("RGB").convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(ramp().astype(np.uint16) * 257).save(tmp_path / "deep.png")
    gray.convert("1").save(tmp_path / "bits.png")
    Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "dot.png")
    reference = np.asarray(open_photo(tmp_path / "gray.png"), dtype=int)
    assert reference.shape == (30, 40, 3)
    np.testing.assert_array_equal(reference[..., 0], ramp())
    deep = np.asarray(open_photo(tmp_path / "deep.png"), dtype=int)
    np.testing.assert_array_equal(deep, reference)  # 16 bits are scaled, not clipped
    assert np.abs(np.asarray(open_photo(tmp_path / "cmyk.jpg"), dtype=int) - reference).max() < 12
    for name in ("bits.png", "dot.png"):
        assert open_photo(tmp_path / name).mode == "RGB"
    source = open_images(tmp_path, PLAIN)
    assert read_all(source).shape == (5, 3, 32, 32)
    dot = source.read(list(source.names).index(str(tmp_path / "dot.png")))
    np.testing.assert_allclose(dot[:, 0, 0], [1, -1, -1], atol=1e-2)


def test_transparency_shows_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "rgba.png")
    clear.quantize(4).save(tmp_path / "palette.png", transparency=0)
    clear.convert("LA").save(tmp_path / "la.png")
    for name in ("rgba.png", "palette.png", "la.png"):
        assert np.asarray(open_photo(tmp_path / name)).min() == 255, name


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 50).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, reason in (("cut.jpg", "truncated"), ("text.jpg", "not an image"), ("empty.png", "not an image")):
        with pytest.raises(InputError, match=rf"{name}.*{reason}"):
            open_photo(tmp_path / name)
    with pytest.raises(InputError, match=r"there is no image .*none\.jpg"):
        open_photo(tmp_path / "none.jpg")


def test_huge_images_are_refused_before_they_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (200, 200)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="more than 1000 pixels"):
        open_photo(tmp_path / "big.png")
