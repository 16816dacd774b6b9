"""Sweeps of made-up numbers: three methods whose agreement and speed are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrim.exporter.core.fidelity import Fidelity
from vitrim.recipes.sweep.result import FORMAT, JOURNAL, RESULT, Row, Speed, Sweep, choose

DENSE = 1.25


def answers(agreement: float, kl: float, images: int = 250) -> Fidelity:
    """Answers with an interval of the divergence a tenth to each side."""
    return Fidelity(images, agreement, kl, kl_interval=(0.9 * kl, 1.1 * kl))


def row(method: str, ratio: float, agreement: float, kl: float, speed: float | None = None, **more: Any) -> Row:
    """A finished point: its floor is a twentieth faster, its interval a hundredth to each side."""
    seen = answers(agreement, kl)
    fast = None if speed is None else Speed(speed, (0.99 * speed, 1.01 * speed), 10 / speed, 10.0, 1.05)
    given = {"gmacs": DENSE * ratio, "floor_gmacs": 0.98 * DENSE * ratio, "look": answers(agreement, kl, 64)}
    return Row(
        method, ratio, more.pop("precision", "fp32"), (17, 9), **{**given, "answers": seen, "speed": fast, **more}
    )


ROWS = (
    row("frugal", 0.5, 0.9, 0.1, 1.6),
    row("frugal", 0.7, 0.988, 0.01, 1.3),
    row("tome", 0.5, 0.92, 0.08, 1.45),
    row("tome", 0.7, 0.98, 0.02, 1.2),
    row("random", 0.5, 0.6, 0.9, 1.7),
    row("random", 0.7, 0.8, 0.4, answers=None, stopped="dominated: <b>frugal</b>"),
    Row("tome", 0.2, "fp32", refused="out of reach"),
)


def sweep(rows: tuple[Row, ...] = ROWS, **more: Any) -> Sweep:
    """Their sweep."""
    asked = [("agreement", 0.95), ("agreement", 0.999), ("speedup", 1.4)]
    chosen = tuple(choose(rows, constraint, bound) for constraint, bound in asked)  # type: ignore[arg-type]
    given: dict[str, Any] = {
        "model": "vit",
        "target": "ort-cpu",
        "batch": 1,
        "dense_gmacs": DENSE,
        "images": 250,
        "cpu": "a CPU",
    }
    given |= {"on_calibration_images": False, "threads": 1, **more}
    return Sweep(FORMAT, points=rows, chosen=chosen, **given)


def folder(place: Path, found: Sweep | None = None) -> Path:
    """A sweep's folder with its result."""
    place.mkdir(parents=True)
    (place / JOURNAL).write_text('{"format": "vitrim-sweep-journal/1"}\n')
    (found or sweep()).write(place / RESULT)
    return place
