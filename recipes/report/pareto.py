"""The Pareto picture of a sweep: how often a point agrees with the dense model over how fast it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

from ..sweep.result import Row, Sweep
from . import svg

TOP, BOTTOM, LEFT, RIGHT = 24.0, 254.0, 38.0, svg.WIDTH - 12.0
_USEFUL, _BELOW = 0.5, 0.05  # shares of agreement: below which a point is of no use, and what is shown below the front
_KINDS = 9  # of looks that methods can have, see report.css
_COLUMNS = 4  # of the legend
# Marks about a point, each with a look of its own, so that a print without colours tells them apart.
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-3.5 -3.5H3.5V3.5H-3.5Z", "M0 -4.6L4.4 3.4H-4.4Z",
    "M0 -4.8L4.8 0L0 4.8L-4.8 0Z", "M0 4.6L4.4 -3.4H-4.4Z",
    "M-4.5 -1.5H-1.5V-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5Z",
    "M-4.5 -2.5a4.5 4.5 0 0 0 9 0Z", "M-2 -4.5H2V4.5H-2Z", "M-4.5 -2H4.5V2H-4.5Z",
)  # fmt: skip


def picture(sweep: Sweep) -> Markup:
    """Points of which everything was measured, with 95 % intervals; the front as a line, what was chosen in rings."""
    rows, low = shown(sweep)
    if not rows:
        return svg.picture(30, "No point was measured.", svg.text(4, 18, "No point was measured.", "small"))
    timed = any(row.speed is not None for row in rows)
    ends = [_at(row) for row in rows] + [1.0 if timed else sweep.dense_gmacs]
    margin = (max(ends) - min(ends)) * 0.08 or 0.1
    x = svg.linear(min(ends) - margin, max(ends) + margin, LEFT, RIGHT)
    y = svg.linear(low, 1.0, BOTTOM, TOP)
    methods = list(dict.fromkeys(row.method for row in sweep.points))
    unit = "times as fast as dense" if timed else "GMACs"
    parts = [
        svg.axis(x, svg.ticks(min(ends), max(ends)), TOP, BOTTOM, ""),
        svg.text((LEFT + RIGHT) / 2, BOTTOM + 27, unit, "small", "middle"),
        _shares(y, low),
        *_front([row for row in sweep.front if row in rows], x, y),
        *(_point(row, methods.index(row.method), x, y) for row in rows),
        *_rings(sweep, rows, x, y),
        _mark(x(1.0 if timed else sweep.dense_gmacs), y(1.0), "dense", 1, "the dense model"),
    ]
    legend, height = _legend(methods, rows)
    return svg.picture(height, alt(sweep, low), *parts, *legend)


def shown(sweep: Sweep) -> tuple[list[Row], float]:
    """The points that are drawn, and the share of agreement that the picture begins at."""
    front = [row.answers.agreement_interval[0] for row in sweep.front if row.answers is not None]
    useful = [end for end in front if end >= _USEFUL] or front
    low = max(0.0, round(min(useful, default=_USEFUL) - _BELOW, 2))
    return [row for row in sweep.whole if row.answers is not None and row.answers.agreement >= low], low


def across(row: Row) -> tuple[float, float]:
    """Where a point's interval begins and ends across the picture."""
    return row.speed.interval if row.speed is not None else (row.gmacs or 0.0, row.gmacs or 0.0)


def _at(row: Row) -> float:
    return row.speed.speedup if row.speed is not None else row.gmacs or 0.0


def _agreement(row: Row) -> float:
    return 0.0 if row.answers is None else row.answers.agreement


def _shares(y: Callable[[float], float], low: float) -> Markup:
    """Thin lines at round shares with their numbers."""
    parts: list[Markup] = [svg.text(0, TOP - 14, "agrees with dense", "small")]
    for share in svg.ticks(100 * low, 100, 6):
        place = y(share / 100)
        parts += [
            svg.line(LEFT, place, RIGHT, place, "grid"),
            svg.text(LEFT - 4, place + 3, f"{share:g} %" if share < 100 else "100 %", "small", "end"),
        ]
    return Markup("").join(parts)


def _front(front: Sequence[Row], x: Callable[[float], float], y: Callable[[float], float]) -> list[Markup]:
    places = [(x(_at(row)), y(_agreement(row))) for row in front]
    return [svg.line(*one, *other, "front") for one, other in pairwise(places)]


def _point(row: Row, number: int, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    """A mark with its intervals."""
    assert row.answers is not None
    kind, (left, right), (low, high) = f"k{number % _KINDS}", across(row), row.answers.agreement_interval
    across_at, up_at = x(_at(row)), y(row.answers.agreement)
    title = f"{row.name}: agreement {100 * row.answers.agreement:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    if row.speed is not None:
        title += f", {row.speed.speedup:.2f} x ({left:.2f} to {right:.2f})"
    return Markup("").join(
        [
            svg.line(across_at, min(BOTTOM, y(low)), across_at, y(high), f"faint {kind}"),
            svg.line(max(LEFT, x(left)), up_at, min(RIGHT, x(right)), up_at, f"faint {kind}"),
            _mark(across_at, up_at, f"{kind}{'' if row.precision == 'fp32' else ' open'}", number, title),
        ]
    )


def _mark(x: float, y: float, class_: str, number: int, title: str) -> Markup:
    return svg.element(
        "path",
        svg.element("title", title),
        d=_SHAPES[number % len(_SHAPES)],
        transform=f"translate({x:.1f} {y:.1f})",
        class_=class_,
    )


def _rings(sweep: Sweep, rows: Sequence[Row], x: Callable[[float], float], y: Callable[[float], float]) -> list[Markup]:
    """Rings around the best points for the constraints."""
    names = {one.point for one in sweep.chosen}
    chosen = [row for row in rows if row.name in names]
    return [svg.element("circle", cx=x(_at(row)), cy=y(_agreement(row)), r=8.0, class_="ring") for row in chosen]


def _legend(methods: Sequence[str], rows: Sequence[Row]) -> tuple[list[Markup], float]:
    """What the marks are; the height that the picture then has."""
    parts: list[Markup] = []
    entries = [(f"k{at % _KINDS}", at, name) for at, name in enumerate(methods)]
    narrow = list(dict.fromkeys(row.precision for row in rows if row.precision != "fp32"))
    if narrow:
        entries.append(("dense open", 0, f"in {', '.join(narrow)}"))
    width = (RIGHT - 4) / _COLUMNS
    for at, (kind, number, words) in enumerate(entries):
        left, top = 10 + width * (at % _COLUMNS), BOTTOM + 46 + 16 * (at // _COLUMNS)
        parts += [_mark(left, top - 3.5, kind, number, words), svg.text(left + 8, top, svg.cut(words, 14), "small")]
    return parts, BOTTOM + 54 + 16 * ((len(entries) - 1) // _COLUMNS)


def alt(sweep: Sweep, low: float) -> str:
    """The front in words."""
    told = "; ".join(
        f"{row.name} {100 * _agreement(row):.1f} %" + (f" at {row.speed.speedup:.2f} x" if row.speed else "")
        for row in sweep.front
        if _agreement(row) >= low
    )
    return f"Agreement with dense over speed. On the front, slowest first: {told}."


def standalone(sweep: Sweep) -> str:
    """The picture as a file of its own, light and dark as the viewer is."""
    style = (Path(__file__).parent / "templates" / "report.css").read_text("utf-8")
    drawn = picture(sweep)
    height = drawn.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()[1]
    inside = svg.element("style", Markup(style)) + svg.bar(0, 0, svg.WIDTH, float(height), "paper")
    box = f'viewBox="0 0 {svg.WIDTH} {height}" width="{2 * svg.WIDTH}" font-family="system-ui, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{inside}{drawn}</svg>\n'
