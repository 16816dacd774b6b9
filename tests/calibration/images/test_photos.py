"""Photos of every kind, opened as 8-bit RGB."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.photos import open_photo
from vitrim.calibration.images.reading import read_all
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


def gray_of(path: Path) -> list[list[int]]:
    pixels = np.asarray(open_photo(path), dtype=int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_count_to_65535_whatever_the_brightest_pixel(tmp_path: Path, suffix: str) -> None:
    dark = np.array([[0, 128, 255], [256, 257, 2570]], np.uint16)
    for name, pixels in (("dark", dark), ("bright", np.maximum(dark, [[0, 0, 0], [0, 0, 65535]]).astype(np.uint16))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.{suffix}")
    assert gray_of(tmp_path / f"dark.{suffix}") == [[0, 0, 1], [1, 1, 10]]
    assert gray_of(tmp_path / f"bright.{suffix}") == [[0, 0, 1], [1, 1, 255]]


def test_sixteen_bits_of_other_byte_orders_and_formats(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535]], np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
    (tmp_path / "dark.pgm").write_bytes(b"P5 3 1 65535\n" + (values // 257).astype(">u2").tobytes())
    (tmp_path / "ten.pgm").write_bytes(b"P5 3 1 1023\n" + np.array([[0, 4, 1023]], ">u2").tobytes())
    Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    assert gray_of(tmp_path / "a.pgm") == [[0, 1, 255]]
    assert gray_of(tmp_path / "dark.pgm") == [[0, 0, 1]]
    assert gray_of(tmp_path / "ten.pgm") == [[0, 1, 255]]
    assert gray_of(tmp_path / "big.tif") == [[0, 1, 255]]


def test_a_tiff_whose_white_is_zero_is_turned(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    image.save(tmp_path / "a.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as saved:
        assert saved.tag_v2[262] == 0
    assert gray_of(tmp_path / "a.tif") == [[255, 254, 0]]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([[0.0, 0.5, 1.0]], [0, 128, 255]), ([[0.0, 0.01, 0.02]], [0, 3, 5]), ([[0.0, 127.5, 255.0]], [0, 128, 255]),
     ([[0.0, 1.5, 16.0]], [0, 2, 16])],
)  # fmt: skip
def test_floats_of_0_to_1_and_of_0_to_255_are_read(tmp_path: Path, values: list, wanted: list[int]) -> None:
    Image.fromarray(np.array(values, np.float32)).save(tmp_path / "a.tif")
    assert gray_of(tmp_path / "a.tif") == [wanted]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0, 1.5]], np.float32), r"floats as pixels, from 0 to 1\.5; only 0 to 1 and 0 to 255 are clear"),
        (np.array([[0, 300]], np.float32), "from 0 to 300"),
        (np.array([[-0.5, 0.5]], np.float32), r"from -0\.5 to 0\.5"),
        (np.array([[np.nan, 0.5]], np.float32), "with NaN or Inf among them"),
        (np.array([[np.inf, 0.5]], np.float32), "with NaN or Inf among them"),
        (
            np.array([[0, 255]], np.int32),
            "pixels of 32 bits, and nothing says which is white; save it with 8 or 16",
        ),
        (np.array([[-5, 70000]], np.int32), "pixels of 32 bits"),
    ],
)
def test_pixels_without_a_known_white_are_refused_by_name(tmp_path: Path, values: np.ndarray, said: str) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(InputError, match=rf"odd\.tif has .*{said}"):
        open_photo(tmp_path / "odd.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_photos_stand_upright_as_their_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255  # upper left
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    found = np.asarray(open_photo(tmp_path / f"a.{suffix}"), dtype=int)[..., 0]
    assert found.shape == (16, 32)
    assert (found[:6, :14].min(), found[10:].max(), found[:, 18:].max()) > (240, -1, -1)
    assert max(found[10:].max(), found[:, 18:].max()) < 15


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 250, 0))
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        first.save(path, save_all=True, append_images=[second], **({"lossless": True} if suffix == "webp" else {}))
        assert np.asarray(open_photo(path))[0, 0].tolist() == pytest.approx([250, 0, 0], abs=3), suffix


@pytest.mark.parametrize(("mode", "off"), [("LAB", 2), ("YCbCr", 3), ("CMYK", 1)])
def test_other_colours_become_rgb(tmp_path: Path, mode: str, off: int) -> None:
    suffix = "jpg" if mode == "YCbCr" else "tif"
    if mode == "LAB":
        image, wanted = Image.frombytes("LAB", (1, 1), bytes([136, 0, 0])), [127, 127, 127]
    else:
        image, wanted = Image.new("RGB", (8, 8), (200, 30, 60)).convert(mode), [200, 30, 60]
    image.save(tmp_path / f"a.{suffix}")
    found = np.asarray(open_photo(tmp_path / f"a.{suffix}"), dtype=int)[0, 0]
    assert np.abs(found - wanted).max() <= off


@pytest.mark.parametrize(
    ("size", "refused"), [((1, 101), True), ((2000, 10), True), ((1, 100), False), ((1, 1), False)]
)
def test_strips_are_no_photos(tmp_path: Path, size: tuple[int, int], refused: bool) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    if refused:
        with pytest.raises(InputError, match=rf"has {size[0]} x {size[1]} pixels, which is too narrow for a photo"):
            open_photo(tmp_path / "a.png")
    else:
        assert open_photo(tmp_path / "a.png").size == size


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    for path, said in (
        (tmp_path / "a.jpg", "it is a FIFO"),
        (Path("/dev/zero"), "it is a device"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(InputError, match=said):
            open_photo(path)


def test_models_of_one_channel_see_gray_and_of_four_say_so(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "a.png")
    gray = Preprocess((1, 32, 32), (0.5,), (0.5,), "bicubic", 1.0, "center")
    photo = open_images(tmp_path, gray)
    array = ArrayImages(np.asarray(open_photo(tmp_path / "a.png"))[None], None, gray, "x")
    for source in (photo, array):
        assert source.read(0).shape == (1, 32, 32)
        np.testing.assert_allclose(source.read(0), 76 / 127.5 - 1, atol=1e-6)
    four = Preprocess((4, 32, 32), (0.5,) * 4, (0.5,) * 4, "bicubic", 1.0, "center")
    with pytest.raises(InputError, match="the model takes 4 channels, and photos have 3; give an .npz with pixels or"):
        open_images(tmp_path, four).read(0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp", "ppm"])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path, draw, refused = tmp_path / f"a.{suffix}", random.Random(0), 0
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(ramp()).convert("RGB").save(path, **({} if suffix in ("gif", "bmp", "ppm") else {"exif": exif}))
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(min(len(data), draw.choice((60, len(data)))))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            assert open_photo(path).mode == "RGB"
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 15


def test_transparency_shows_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "rgba.png")
    clear.quantize(4).save(tmp_path / "palette.png", transparency=0)
    clear.convert("LA").save(tmp_path / "la.png")
    Image.new("L", (8, 8)).save(tmp_path / "gray.png", transparency=0)
    Image.new("1", (8, 8)).save(tmp_path / "bits.png", transparency=0)
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    for name in ("rgba.png", "palette.png", "la.png", "gray.png", "bits.png", "rgb.png"):
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
