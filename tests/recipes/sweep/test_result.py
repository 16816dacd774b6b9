"""The front and the best points, on numbers that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sweeps import ROWS, folder, row, sweep

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.sweep.result import Sweep, choose, is_sweep, read_sweep


def test_the_front_is_what_nothing_beats_in_both() -> None:
    assert sweep().on_front == (
        "frugal at 0.7 in fp32",
        "tome at 0.5 in fp32",
        "frugal at 0.5 in fp32",
        "random at 0.5 in fp32",
    )
    untimed = tuple(row(one.method, one.ratio, 0.9 + one.ratio / 10, 0.1) for one in ROWS[:4])
    assert sweep(untimed).on_front == ("frugal at 0.7 in fp32", "frugal at 0.5 in fp32")


def test_the_best_for_a_constraint_holds_it_with_its_interval_where_one_does() -> None:
    found = sweep()
    best = found.best(agreement=0.95)
    assert best is not None
    assert best.name == "frugal at 0.7 in fp32"
    # 0.98 of 250 images begins at 0.954: it does hold 0.95, but is slower.
    assert choose(ROWS, "agreement", 0.95).surely
    assert (choose(ROWS, "agreement", 0.988).point, choose(ROWS, "agreement", 0.988).surely) == (best.name, False)
    sure = (row("a", 0.5, 0.955, 0.1, 1.5), row("b", 0.5, 0.99, 0.1, 1.2))
    assert choose(sure, "agreement", 0.95).point == "b at 0.5 in fp32"
    fast = found.best(speedup=1.4)
    assert fast is not None
    assert fast.name == "tome at 0.5 in fp32"
    assert found.best(agreement=0.999) is None
    assert [one.point for one in found.chosen] == [best.name, None, fast.name]
    with pytest.raises(InputError, match="best: give agreement=, such as 0.98, or speedup="):
        found.best()


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    place = folder(tmp_path / "s")
    assert is_sweep(place)
    assert not is_sweep(tmp_path)
    assert read_sweep(place) == sweep()
    data = json.loads((place / "sweep.json").read_text())
    assert data["on_front"][0] == "frugal at 0.7 in fp32"
    with pytest.raises(InputError, match=r"is of the format 'other'"):
        Sweep.from_json({**data, "format": "other"}, "sweep.json")


def test_a_notebook_shows_its_picture() -> None:
    shown = sweep()._repr_html_()
    assert shown is not None
    assert shown.startswith("<iframe")
    assert "frugal at 0.7" in shown
