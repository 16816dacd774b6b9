"""Photos of every kind that people have: they work, or are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.photos import open_photo
from vitrim.calibration.images.sources import batches, choose, read_all
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


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        open_images(tmp_path, PLAIN)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        open_images(tmp_path, PLAIN)
    with pytest.raises(InputError, match="there is no"):
        open_images(tmp_path / "none", PLAIN)


def test_class_folders_give_labels_only_if_they_match_the_model(tmp_path: Path) -> None:
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    source = open_images(tmp_path, PLAIN, classes=2)
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert Path(source.names[0]).parent.name == "ant"
    assert open_images(tmp_path, PLAIN, classes=1000).labels is None
    odd = open_images(tmp_path, PLAIN, classes=2, every=2, offset=1)
    even = open_images(tmp_path, PLAIN, classes=2, every=2)
    assert set(odd.names) | set(even.names) == set(source.names)
    assert not set(odd.names) & set(even.names)
    with pytest.raises(InputError, match="only 6 images, none left"):
        open_images(tmp_path, PLAIN, offset=9)


def test_counts_spread_evenly() -> None:
    assert choose(1000, count=4) == [125, 375, 625, 875]
    assert choose(10, count=99) == list(range(10))
    assert choose(10, every=3, offset=1) == [1, 4, 7]


def test_npz_of_photos_and_of_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (5, 40, 30, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", image=photos, label=np.arange(5))
    source = open_images(tmp_path / "photos.npz", PLAIN, count=2)
    assert source.labels is not None
    assert (len(source), source.labels.tolist()) == (2, [1, 3])
    inputs = rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", x=inputs)
    np.testing.assert_array_equal(read_all(open_images(tmp_path / "inputs.npz", PLAIN)), inputs)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": np.zeros(3)}, "none named image"),
        ({"image": np.zeros((2, 3, 8, 8), np.float32)}, r"\[2, 3, 8, 8\].*preprocessed"),
        ({"image": np.zeros((0, 8, 8, 3), np.uint8)}, "holds no images"),
        ({"image": np.full((1, 3, 32, 32), np.nan, np.float32)}, "NaN"),
        ({"image": np.zeros((2, 8, 8, 3), np.uint8), "label": np.zeros(3, int)}, "one integer an image"),
        ({"image": np.array([{}], dtype=object)}, "not a whole .npz of plain arrays"),
    ],
)
def test_other_npz_files_are_refused_with_the_reason(tmp_path: Path, arrays: dict, reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        open_images(tmp_path / "a.npz", PLAIN)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((9, 8, 8, 3), np.uint8))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(InputError, match="not a whole"):
        open_images(tmp_path / "a.npz", PLAIN)


def test_fingerprints_follow_bytes_and_preprocessing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = open_images(tmp_path, PLAIN).fingerprint()
    assert open_images(tmp_path, PLAIN).fingerprint() == first
    other = Preprocess((3, 16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    assert open_images(tmp_path, other).fingerprint() != first
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "a.png")
    assert open_images(tmp_path, PLAIN).fingerprint() != first


def test_batches_keep_the_order(tmp_path: Path) -> None:
    inputs = np.arange(7 * 3 * 32 * 32, dtype=np.float32).reshape(7, 3, 32, 32)
    np.savez(tmp_path / "a.npz", image=inputs)
    parts = list(batches(open_images(tmp_path / "a.npz", PLAIN), 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), inputs)
