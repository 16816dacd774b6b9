from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import report_bundles
from PIL import Image

from vitrim.exporter.core.preprocess import Preprocess, from_pixels
from vitrim.recipes.report import photos
from vitrim.recipes.report.patches import DROPPED, Fate
from vitrim.recipes.report.sources import read_bundle

GRID = (4, 4)


def test_pixels_come_back_from_whatever_the_graph_takes(tmp_path: Path) -> None:
    facts = read_bundle(report_bundles.make(tmp_path / "out"))
    pixels = facts.golden["image"]
    assert np.array_equal(photos.pixels_of(facts), pixels)  # type: ignore[arg-type]
    how = Preprocess((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.9, "center")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in how.to_dict().items()}
    normal = replace(
        facts, golden={"image": from_pixels(pixels, how)}, manifest=replace(facts.manifest, preprocess=plain)
    )
    assert np.array_equal(photos.pixels_of(normal), pixels)  # type: ignore[arg-type]
    assert photos.pixels_of(replace(facts, golden={"image": pixels[..., :2]})) is None


def test_a_photo_is_a_jpeg_in_the_page() -> None:
    kind, _, data = photos.data_uri(np.full((8, 8, 3), 200, np.uint8)).partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (kind, picture.size, picture.format) == ("data:image/jpeg;base64", (8, 8), "JPEG")


def test_a_cell_greys_what_is_dropped_and_joins_what_is_merged() -> None:
    groups = np.array([1, 1, 3, 4, *range(5, 13), *[DROPPED] * 4])
    colours = np.tile(np.arange(16)[:, None] * 10.0, 3)
    drawn = photos.cell("photo-0-0", colours, GRID, groups, "alt & text")
    assert '<use href="#photo-0-0">' in drawn
    assert '<path d="M0 3h1v1h-1zM1 3h1v1h-1zM2 3h1v1h-1zM3 3h1v1h-1z" class="gone">' in drawn
    assert '<path d="M0 0h1v1h-1zM1 0h1v1h-1z" class="joined" fill="#050505">' in drawn
    assert (
        '<path d="M0 1h1M2 0v1M1 1h1" class="edge" stroke-width="0.03">' in drawn
    )  # around the two, and not between them
    assert "<title>alt &amp; text</title>" in drawn


def test_mean_colours_are_of_each_patch() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:4, 4:6] = 100
    found = photos.means(image, GRID)
    assert found.shape == (16, 3)
    assert np.flatnonzero(found[:, 0]).tolist() == [6]
    assert found[6].tolist() == [100, 100, 100]


def test_a_map_says_and_shows_shares() -> None:
    fate = Fate(3, 1, np.arange(16)[None])
    drawn = photos.survival_map(fate, np.linspace(0, 1, 16), GRID)
    assert drawn.count("<rect") == 16
    assert "After block 3, the token of a place is still there in 50% of the cases; from 0% to 100% by place." in drawn
    assert "<title>row 4, column 4: 100%</title>" in drawn


def test_a_stage_in_words() -> None:
    assert photos.stage_words(np.array([1, 1, 2, DROPPED])) == "1 patches as they are, 2 merged into 1, 1 dropped"
