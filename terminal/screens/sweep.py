"""What a sweep found, on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .console import percent, percent_range, print_lines

if TYPE_CHECKING:
    from rich.console import Console

    from ...recipes.sweep.result import Row, Sweep


def print_sweep(found: Sweep, console: Console) -> None:
    """The front, the best point for every constraint, and what became of the others."""
    stopped = sum(row.stopped is not None for row in found.points)
    refused = [row for row in found.points if row.refused is not None]
    title = f"{len(found.points)} points of {found.model}, {found.images} images, {found.target} on {found.cpu}"
    table = Table(title=title, title_justify="left")
    for column in ("on the front", "GMACs", "speed", "95 %", "ms", "agreement", "95 %", "divergence"):
        table.add_column(column, justify="left" if column == "on the front" else "right")
    for row in found.front:
        table.add_row(row.name, *_cells(row))
    console.print(table)
    best = Table(title="The best for every constraint", title_justify="left")
    for column in ("constraint", "point", "holds", "recipe"):
        best.add_column(column)
    for one in found.chosen:
        asked = f"agreement {percent(one.bound)}" if one.constraint == "agreement" else f"speed {one.bound:g}"
        holds = "no point does" if one.point is None else ("with its interval" if one.surely else "as measured")
        best.add_row(asked, one.point or "-", holds, one.recipe or "-")
    console.print(best)
    lines = [f"{stopped} points were stopped, dominated by others; {len(refused)} cannot be had."]
    lines += [found.untimed] if found.untimed else []
    disturbed = [row for row in found.whole if row.speed is not None and row.speed.warning is not None]
    if disturbed:
        assert disturbed[0].speed is not None
        lines += [
            f"{len(disturbed)} points were timed beside other work, such as {disturbed[0].name}: "
            f"{disturbed[0].speed.warning}"
        ]
    if found.on_calibration_images:
        lines += ["These are the calibration images themselves: give more images, or an evaluate section."]
    lines += [f"{found.resumed} points were finished before." if found.resumed else ""]
    print_lines([line for line in lines if line], console)


def _cells(row: Row) -> list[str]:
    seen, speed = row.answers, row.speed
    assert seen is not None
    fast = ["-", "-", "-"]
    if speed is not None:
        fast = [f"{speed.speedup:.2f}", f"{speed.interval[0]:.2f} to {speed.interval[1]:.2f}", f"{speed.median:.2f}"]
    return [
        f"{row.gmacs:.3f}", *fast, percent(seen.agreement), percent_range(seen.agreement_interval), f"{seen.kl:.4f}",
    ]  # fmt: skip
