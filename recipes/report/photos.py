"""A bundle's golden images as photos, and what the stages made of them drawn on top."""

from __future__ import annotations

import base64
import io
from collections import Counter

import numpy as np
from markupsafe import Markup

from ...exporter.core.preprocess import Preprocess, to_pixels
from . import svg
from .patches import DROPPED, Fate
from .sources import BundleFacts

_QUALITY = 82  # of JPEG
_EDGE = 0.0065  # width of outlines, as a share of a picture's


def pixels_of(facts: BundleFacts) -> np.ndarray | None:
    """[n, height, width, 3] uint8 of the golden images; None where they are no colour or grey pictures."""
    images, found = facts.golden["image"], facts.manifest.preprocess
    if images.ndim != 4:
        return None
    if images.dtype != np.uint8:
        if found is None:
            return None
        images = to_pixels(images.astype(np.float32), Preprocess.from_dict(found))
    if images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    return images if images.shape[3] == 3 else None


def data_uri(pixels: np.ndarray) -> str:
    """[height, width, 3] uint8 as a JPEG in a URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def defined(name: str, uri: str, grid: tuple[int, int]) -> Markup:
    """A photo that cells refer to by name, so that it is in the page once; one patch is one unit."""
    rows, columns = grid
    return svg.element(
        "image", id=name, href=uri, width=columns, height=rows, preserveAspectRatio="none", aria_hidden="true"
    )


def means(pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """[patches, 3] mean colours of an image [height, width, 3]."""
    rows, columns = grid
    height, width = pixels.shape[:2]
    blocks = pixels.reshape(rows, height // rows, columns, width // columns, 3).astype(np.float64)
    found: np.ndarray = blocks.mean(axis=(1, 3)).reshape(rows * columns, 3)
    return found


def cell(photo: str | None, colours: np.ndarray | None, grid: tuple[int, int], groups: np.ndarray, alt: str) -> Markup:
    """One photo after one stage: kept patches as they are, dropped ones greyed, merged ones in their mean colour.

    Args:
        photo: name of the picture; None draws no picture beneath.
        colours: [patches, 3] mean colours; None without a picture.
        grid: rows and columns.
        groups: [patches], see `Fate`.
        alt: what is to be seen, in words.
    """
    under = [] if photo is None else [svg.element("use", href=f"#{photo}")]
    gone = [index for index, group in enumerate(groups) if group == DROPPED]
    over = [svg.element("path", d=_squares(gone, grid[1]), class_="gone")] if gone else []
    sizes = Counter(int(group) for group in groups if group != DROPPED)
    for group in (group for group, size in sizes.items() if size > 1):
        members = [int(index) for index in np.flatnonzero(groups == group)]
        mean = None if colours is None else colours[members].mean(axis=0)
        fill = None if mean is None else "#" + "".join(f"{round(value):02x}" for value in mean)
        over.append(svg.element("path", d=_squares(members, grid[1]), class_="joined", fill=fill))
    edges = _edges(groups.reshape(grid), sizes)
    over += [svg.element("path", d=edges, class_="edge", stroke_width=_EDGE * grid[1])] if edges else []
    return svg.picture(grid[0], alt, *under, *over, width=grid[1], class_="cell")


def _squares(patches: list[int], columns: int) -> str:
    return "".join(f"M{index % columns} {index // columns}h1v1h-1z" for index in patches)


def _edges(groups: np.ndarray, sizes: Counter[int]) -> str:
    """The outlines of merged groups, as lines between neighbours of different groups."""
    rows, columns = groups.shape
    merged = np.vectorize(lambda group: sizes.get(int(group), 0) > 1, otypes=[bool])(groups)
    parts: list[str] = []
    for row in range(rows):
        for column in range(columns):
            here = groups[row, column]
            if column + 1 < columns and here != groups[row, column + 1] and merged[row, column : column + 2].any():
                parts.append(f"M{column + 1} {row}v1")
            if row + 1 < rows and here != groups[row + 1, column] and merged[row : row + 2, column].any():
                parts.append(f"M{column} {row + 1}h1")
    return "".join(parts)


def survival_map(fate: Fate, shares: np.ndarray, grid: tuple[int, int]) -> Markup:
    """How often the token of every place is still there after a stage, as squares that are the fuller the oftener."""
    rows, columns = grid
    squares = [
        svg.element(
            "rect",
            svg.element("title", f"row {index // columns + 1}, column {index % columns + 1}: {share:.0%}"),
            x=index % columns,
            y=index // columns,
            width=1,
            height=1,
            class_="heat",
            fill_opacity=float(share),
        )
        for index, share in enumerate(shares)
    ]
    alt = (
        f"After block {fate.block}, the token of a place is still there in {shares.mean():.0%} of the cases; "
        f"from {shares.min():.0%} to {shares.max():.0%} by place."
    )
    return svg.picture(rows, alt, *squares, width=columns, class_="cell map")


def stage_words(groups: np.ndarray) -> str:
    """What a stage left of one image, in words."""
    sizes = Counter(int(group) for group in groups if group != DROPPED)
    merged = sum(size for size in sizes.values() if size > 1)
    return (
        f"{sum(size == 1 for size in sizes.values())} patches as they are, {merged} merged into "
        f"{sum(size > 1 for size in sizes.values())}, {int((groups == DROPPED).sum())} dropped"
    )
