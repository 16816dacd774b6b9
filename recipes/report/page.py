"""The page: what is told of every bundle, rendered by the template. Every text is escaped there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from ... import __version__
from ...exporter.core.errors import visible
from ...exporter.runtime.lines import made_by
from . import charts, pareto, photos, proofs
from .answers import Answer, Answers, answers_of, chosen
from .patches import Fate, fates_of, grid_of, survival
from .sources import BundleFacts, Sources
from .svg import cut

NAME = 40  # characters of a class's name
WORST = 12  # classes of an evaluation that are drawn
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A picture with the words below it."""

    drawing: Markup
    words: str


@dataclass(frozen=True)
class Shown:
    """One photo with what became of it.

    Attributes:
        answer: of both models.
        cells: the photo, then a picture a stage.
    """

    answer: Answer
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Chapter:
    """One bundle as the template has it.

    Attributes:
        number: of the bundle, which keeps names apart.
        facts: the bundle's.
        answers: on its golden images.
        definitions: photos that cells refer to.
        shown: photos; none where there shall be none.
        no_patches: why patches cannot be drawn; None where they can.
        places: a map a stage.
        survival: shares by place, a row a stage.
    """

    number: int
    facts: BundleFacts
    answers: Answers
    definitions: tuple[Markup, ...]
    shown: tuple[Shown, ...]
    no_patches: str | None
    places: tuple[Cell, ...]
    survival: tuple[tuple[int, tuple[float, ...]], ...]


def chapter(number: int, facts: BundleFacts, photos_wanted: int) -> Chapter:
    """Look at a bundle's images and answers.

    Args:
        number: of the bundle in the report.
        facts: of the bundle.
        photos_wanted: how many photos to show; 0 puts none into the page.
    """
    answers, fates = answers_of(facts), fates_of(facts.budget, facts.golden)
    pixels = photos.pixels_of(facts) if fates else None
    grid = None if pixels is None else _grid(pixels, fates[0])
    if pixels is None or grid is None:
        why = "This plan chooses no patches." if not fates else "The patches are no grid of squares."
        return Chapter(number, facts, answers, (), (), why, (), ())
    shares = [(fate.block, survival(fate)) for fate in fates]
    places = tuple(
        Cell(photos.survival_map(fate, share, grid), f"after block {fate.block}: {share.mean():.0%}")
        for fate, (_, share) in zip(fates, shares, strict=True)
    )
    plain = tuple((block, tuple(round(float(value), 4) for value in share)) for block, share in shares)
    found = Chapter(number, facts, answers, (), (), None, places, plain)
    return _with_photos(found, pixels, fates, grid, photos_wanted) if photos_wanted else found


def _grid(pixels: np.ndarray, fate: Fate) -> tuple[int, int] | None:
    found = grid_of(fate.groups.shape[1], *pixels.shape[1:3])
    return found if found and pixels.shape[1] % found[0] == 0 and pixels.shape[2] % found[1] == 0 else None


def _with_photos(plain: Chapter, pixels: np.ndarray, fates: list[Fate], grid: tuple[int, int], count: int) -> Chapter:
    picked = chosen(plain.answers, count) or [Answer(at, -1, 0.0) for at in range(min(count, len(pixels)))]
    definitions, shown = [], []
    for answer in picked:
        name, image = f"photo-{plain.number}-{answer.image}", pixels[answer.image]
        definitions.append(photos.defined(name, photos.data_uri(image), grid))
        colours = photos.means(image, grid)
        untouched = photos.cell(
            name, colours, grid, _nothing(fates[0], answer.image), f"Photo {answer.image}, as the model sees it."
        )
        cells = [Cell(untouched, "photo")]
        for fate in fates:
            groups = fate.groups[answer.image]
            tokens = len({int(group) for group in groups if group >= 0})
            alt = f"Photo {answer.image} after block {fate.block}: {photos.stage_words(groups)}."
            cells.append(Cell(photos.cell(name, colours, grid, groups, alt), f"block {fate.block}: {tokens} tokens"))
        shown.append(Shown(answer, tuple(cells)))
    return replace(plain, definitions=tuple(definitions), shown=tuple(shown))


def _nothing(fate: Fate, image: int) -> np.ndarray:
    """Groups of an image of which nothing was removed."""
    return np.arange(fate.groups.shape[1]) + fate.prefix


@cache
def template() -> jinja2.Template:
    """The page's own, compiled once in a process, which takes longer than to fill it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "visible": visible, "class_of": class_name, "shell": shlex.join}
    return environment.get_template("report.html")


def render(sources: Sources, chapters: list[Chapter], photos_wanted: int) -> str:
    """The whole page as HTML."""
    style = Markup((TEMPLATES / "report.css").read_text("utf-8"))  # our own file: no text of a user is in it
    return template().render(
        sources=sources,
        chapters=chapters,
        photos_wanted=photos_wanted,
        charts=charts,
        proofs=proofs,
        pareto=pareto,
        made_by=made_by,
        worst=WORST,
        style=style,
        version=__version__,
    )


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """A class for a person: its number, and its name where that is known."""
    if labels is None or not 0 <= index < len(labels):
        return f"class {index}"
    return f"class {index} ({cut(visible(labels[index]), NAME)})"


def percent(value: float) -> str:
    """A share for a person."""
    return f"{100 * value:.1f} %"
