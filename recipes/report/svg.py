"""Inline SVG in a few functions: elements whose text is always escaped, and scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

WIDTH = 360  # of every chart: as wide as a telephone, so that text stays legible there


def element(name: str, *inside: object, **attributes: object) -> Markup:
    """An element; underscores at the end of attributes' names go, others become hyphens. None is left out.

    What is inside, and every value, is escaped, but for markup that these functions made.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{escape(_shown(value))}"' for key, value in named.items())
    return Markup(f"<{name}{words}>") + Markup("").join(escape(one) for one in inside) + Markup(f"</{name}>")


def _shown(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def picture(height: float, alt: str, *inside: object, width: float = WIDTH, class_: str = "chart") -> Markup:
    """A whole chart with its alternative text."""
    return element(
        "svg", element("title", alt), *inside, viewBox=f"0 0 {width:g} {height:g}", role="img", class_=class_
    )


def text(x: float, y: float, words: object, class_: str | None = None, anchor: str | None = None) -> Markup:
    """Text whose baseline begins at a point; `anchor` is `middle` or `end`."""
    return element("text", words, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def cut(words: str, most: int) -> str:
    """Words that fit beside a chart."""
    return words if len(words) <= most else words[: most - 1] + "…"


def bar(x: float, y: float, width: float, height: float, class_: str, title: str | None = None) -> Markup:
    """A rectangle with a title that shows when it is pointed at."""
    inside = [] if title is None else [element("title", title)]
    return element(
        "rect", *inside, x=float(x), y=float(y), width=float(max(width, 0)), height=float(height), class_=class_
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def dot(x: float, y: float, class_: str, title: str | None = None) -> Markup:
    """A point."""
    inside = [] if title is None else [element("title", title)]
    return element("circle", *inside, cx=float(x), cy=float(y), r="4", class_=class_)


def linear(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    """A scale from values to places."""
    span = (high - low) or 1.0
    return lambda value: left + (value - low) / span * (right - left)


def logarithmic(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    """A scale by powers of ten; what lies outside is put at its end."""
    inner = linear(math.log10(low), math.log10(high), left, right)
    return lambda value: inner(math.log10(min(max(value, low), high)))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between two others, at most about `most`."""
    raw = (high - low) / most
    if raw <= 0:
        return [low]
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def axis(scale: Callable[[float], float], values: Sequence[float], top: float, bottom: float, unit: str) -> Markup:
    """Thin lines at round values with their numbers below, the last with the unit."""
    parts: list[Markup] = []
    for at, value in enumerate(values):
        words = f"{value:g}".replace("e-0", "e-")
        words = f"{words} {unit}" if at == len(values) - 1 and unit else words
        parts += [
            line(scale(value), top, scale(value), bottom, "grid"),
            text(scale(value), bottom + 13, words, "small", "start" if scale(value) < 16 else "middle"),
        ]
    return Markup("").join(parts)
