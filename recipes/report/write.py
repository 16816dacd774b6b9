"""Write a report: the page, and the same as plain data beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exporter.core.bounds import PHOTOS
from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.files import atomic_write
from ...exporter.core.inputs import InputKind, read_json, read_text
from ...exporter.core.records import Record, finite
from ...exporter.runtime.outputs import Output, check_output

if TYPE_CHECKING:
    from ..sweep.result import Sweep
    from .page import Chapter
    from .sources import Sources

FORMAT = "vitrim-report/1"
_MARK = f'<meta name="generator" content="{FORMAT}'
_FRAME = "width:100%;height:40rem;border:1px solid #8888"


@dataclass(frozen=True)
class Written(Record):
    """A report that was written.

    Attributes:
        page: the HTML file.
        data: the JSON file beside it.
        bytes: of the page.
        photos: that are in it.
        notes: what is not in it, and why.
    """

    page: str
    data: str
    bytes: int
    photos: int
    notes: tuple[str, ...]


def need_report() -> None:
    """Say how to get what a report needs, where it is missing.

    Raises:
        EnvironmentLackError: jinja2 or pillow is not installed.
    """
    wanted = {"jinja2": "jinja2", "PIL": "pillow"}
    missing = [name for module, name in wanted.items() if find_spec(module) is None]
    if missing:
        raise EnvironmentLackError(
            f"{' and '.join(missing)} not installed, which a report needs: pip install {' '.join(missing)}"
        )


def write_report(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    photos: int,
    force: bool = False,
    note: Callable[[str], None] | None = None,
) -> Written:
    """Report on bundles, benchmarks, sweeps and evaluations, see `vitrim.api.report`."""
    page = Path(out)
    refuse_no_page(page)
    if not 0 <= photos <= PHOTOS[1]:
        raise InputError(f"{photos} photos cannot be shown; give a number from 0 to {PHOTOS[1]}")
    data = page.with_suffix(".json")
    named = {f"{path}": path for path in paths}
    replaced = {
        place: check_output(place, kind, force=force, inputs=named) for place, kind in ((page, PAGE), (data, DATA))
    }
    for words in filter(None, replaced.values()):
        if note:
            note(words)
    text, chapters, sources = _composed(paths, photos)
    plain = {
        "format": FORMAT,
        "bundles": [_plain(one) for one in chapters],
        "benchmarks": {name: bench.to_json() for name, bench in sources.benches.items()},
        "evaluations": {name: one.to_json() for name, one in sources.evaluations.items()},
        "sweeps": {name: sweep.to_json() for name, sweep in sources.sweeps.items()},
        "comparison": None if sources.comparison is None else sources.comparison.to_json(),
    }
    atomic_write(data, json.dumps(finite(plain), indent=1) + "\n")
    atomic_write(page, text)
    lacks = [(one.facts.name, words) for one in chapters for words in (one.answers.lacking, one.no_patches) if words]
    shown = sum(len(one.shown) for one in chapters)
    return Written(str(page), str(data), len(text.encode()), shown, tuple(f"{name}: {words}" for name, words in lacks))


def refuse_no_page(path: Path) -> None:
    """Refuse a name that a browser would not take for a page.

    Raises:
        InputError: it does not end in .html or .htm.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} is no name of a page; name a file that ends in .html")


def page_of(folder: Path, photos: int) -> str:
    """A bundle's report as HTML.

    Raises:
        InputError: it is damaged, or no bundle.
        EnvironmentLackError: jinja2 or pillow is not installed.
    """
    return _composed([folder], photos)[0]


def in_frame(folder: Path, photos: int) -> str | None:
    """A bundle's report for a notebook, in a frame of its own whose style touches nothing else.

    Returns:
        HTML; None where jinja2 or pillow is missing, or the folder is no bundle any more: a notebook then shows the
        object as text.
    """
    try:
        return _framed(page_of(folder, photos))
    except (EnvironmentLackError, InputError):
        return None


def sweep_in_frame(sweep: Sweep) -> str | None:
    """A sweep's part of a report for a notebook, as `in_frame`."""
    try:
        need_report()
    except EnvironmentLackError:
        return None
    from .page import render
    from .sources import Sources

    return _framed(render(Sources((), {}, None, {sweep.model: sweep}), [], 0))


def _framed(page: str) -> str:
    return f'<iframe title="vitrim report" sandbox srcdoc="{escape(page)}" style="{_FRAME}"></iframe>'


def _composed(paths: Sequence[str | os.PathLike[str]], photos: int) -> tuple[str, list[Chapter], Sources]:
    need_report()
    from .page import chapter, render
    from .sources import read_sources

    sources = read_sources(paths)
    chapters = [chapter(number, facts, photos) for number, facts in enumerate(sources.bundles)]
    return render(sources, chapters, photos), chapters, sources


def _plain(found: Chapter) -> dict[str, Any]:
    """A chapter as plain data, without pictures."""
    facts = found.facts
    return {
        "name": facts.name,
        "manifest": facts.manifest.to_json(),
        "budget": None if facts.budget is None else facts.budget.model_dump(mode="json"),
        "fidelity": None if facts.fidelity is None else facts.fidelity.to_json(),
        "parity": facts.parity.to_json(),
        "precision": None if facts.precision is None else facts.precision.to_json(),
        "engine": None if facts.engine is None else facts.engine.to_json(),
        "gate": None if facts.gate is None else facts.gate.to_json(),
        "answers": [asdict(one) for one in found.answers.each],
        "no_dense_answers": found.answers.lacking,
        "photos": [one.answer.image for one in found.shown],
        "survival": {str(block): list(shares) for block, shares in found.survival},
    }


def _read_page(path: Path) -> None:
    if _MARK not in read_text(path, InputKind.JSON)[:2000]:
        raise InputError(f"{path} is no report")


def _read_data(path: Path) -> None:
    data = read_json(path, "report", "vitrim report")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path} is no report")


PAGE = Output("report", _read_page, "report.html")
DATA = Output("report's data", _read_data, "report.json")
