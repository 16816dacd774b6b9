"""The generator of labelled images: repeatable, balanced, cluttered, and honest about where the object is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrim.calibration.images import generated as synthetic
from vitrim.calibration.images.generated import (
    CLASSES,
    CONTRAST,
    LARGEST,
    SMALLEST,
    make_image,
    make_images,
    write_folder,
)


def drawn(monkeypatch: pytest.MonkeyPatch, seed: int) -> np.ndarray:
    """Where the ball of the image of `seed` is: it alone changes when only the pattern under it does. [112, 112]."""
    shares = []
    for share in (0.0, 1.0):
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "_pattern", lambda kind, x, y, period, rng, share=share: np.full(x.shape, share))
            shares.append(make_image(0, (seed,)).astype(int))
    return np.abs(shares[0] - shares[1]).max(axis=2)


def test_types_shapes_and_balance() -> None:
    pixels, labels = make_images(30, 5, size=48)
    assert (pixels.shape, pixels.dtype) == ((30, 48, 48, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((30,), np.int64)
    assert np.bincount(labels).tolist() == [3] * len(CLASSES)
    assert len(set(CLASSES)) == len(CLASSES) == 10


def test_a_count_that_classes_do_not_divide_is_balanced_to_one() -> None:
    counts = np.bincount(make_images(23, 0, size=32)[1], minlength=len(CLASSES))
    assert counts.sum() == 23
    assert counts.max() - counts.min() == 1


def test_a_seed_repeats_and_another_does_not() -> None:
    first, again, other = (make_images(10, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first.astype(int) - other).mean(axis=(1, 2, 3)) > 10).all()


def test_statistics_of_the_pixels() -> None:
    """Wide colours on every channel, no class that brightness alone gives away."""
    pixels, labels = make_images(100, 9)
    assert (pixels.mean(axis=(0, 1, 2)) > 110).all()
    assert (pixels.mean(axis=(0, 1, 2)) < 145).all()
    assert (pixels.std(axis=(0, 1, 2)) > 45).all()
    by_class = np.array([pixels[labels == label].mean() for label in range(len(CLASSES))])
    assert by_class.max() - by_class.min() < 60


def test_the_ball_is_whole_and_covers_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most patches are background: 10 to 21 % of the area is the object, and it is never cut by the border."""
    for seed in range(20):
        ball = drawn(monkeypatch, seed)
        inside = ball > CONTRAST / 2
        assert np.pi * SMALLEST**2 * 0.9 < inside.mean() < np.pi * LARGEST**2 * 1.02
        edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
        assert edge.mean() < 0.05
        assert (ball == 0).mean() > 0.7  # outside of it the two images are the same, noise included


def test_backgrounds_are_cluttered() -> None:
    """Without any ball, neighbouring 8x8 patches differ: flat backgrounds would make importance trivial."""
    for seed in range(10):
        image = np.asarray(synthetic._background(np.random.default_rng(seed), 112), dtype=float)
        patches = image.reshape(14, 8, 14, 8, 3).mean(axis=(1, 3))
        assert patches.std(axis=(0, 1)).max() > 8
        assert image.std() > 10


def test_harder_images_on_request() -> None:
    easy = make_image(0, (1,))
    np.testing.assert_array_equal(easy, make_image(0, (1,), contrast=CONTRAST, smallest=SMALLEST))
    assert (easy != make_image(0, (1,), smallest=0.10)).any()


def test_a_folder_is_an_image_folder_of_the_same_pixels(tmp_path: Path) -> None:
    write_folder(tmp_path / "new" / "tree", 20, 6, size=32)
    pixels, labels = make_images(20, 6, size=32)
    folders = sorted(path.name for path in (tmp_path / "new" / "tree").iterdir())
    assert folders == [f"{label}_{name.replace(' ', '_')}" for label, name in enumerate(CLASSES)]
    files = sorted((tmp_path / "new" / "tree").rglob("*.png"), key=lambda path: path.name)
    assert len(files) == 20
    for path, image, label in zip(files, pixels, labels, strict=True):
        assert path.parent.name.startswith(f"{label}_")
        with Image.open(path) as opened:
            np.testing.assert_array_equal(np.asarray(opened), image)


def test_generated_images_are_balanced_repeatable_and_different() -> None:
    pixels, labels = make_images(40, 7)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 112, 112, 3)
    assert np.bincount(labels).tolist() == [4] * len(CLASSES)
    again, _ = make_images(40, 7)
    np.testing.assert_array_equal(pixels, again)
    other, _ = make_images(40, 8)
    assert (pixels != other).any(axis=(1, 2, 3)).all()
    larger, _ = make_images(50, 7)
    np.testing.assert_array_equal(larger[:40], pixels)  # image i depends on the seed and i only
    assert 60 < pixels.mean() < 190


@pytest.mark.parametrize("size", [32, 64])
def test_other_sizes(size: int) -> None:
    assert make_images(3, 0, size)[0].shape == (3, size, size, 3)
