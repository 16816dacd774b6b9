"""The Pareto picture says what it shows, and stands alone as a file."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sweeps import ROWS, folder, row, sweep

from vitrim import api
from vitrim.recipes.report import pareto


def places(drawn: str, name: str) -> tuple[float, float]:
    found = re.search(rf'transform="translate\(([\d.]+) ([\d.]+)\)"><title>{re.escape(name)}', drawn) or re.search(
        rf'd="[^"]*" transform="translate\(([\d.]+) ([\d.]+)\)" class="[^"]*"><title>{re.escape(name)}', drawn
    )
    assert found is not None, name
    return float(found[1]), float(found[2])


def test_faster_stands_to_the_right_and_more_faithful_higher() -> None:
    drawn = pareto.picture(sweep())
    dense = places(drawn, "the dense model")
    slow, fast = places(drawn, "frugal at 0.7 in fp32"), places(drawn, "frugal at 0.5 in fp32")
    assert dense[0] < slow[0] < fast[0]
    assert dense[1] < slow[1] < fast[1]
    assert drawn.count('class="ring"') == 2
    assert "random at 0.7" not in drawn  # stopped
    assert "On the front, slowest first: frugal at 0.7 in fp32 98.8 % at 1.30 x; tome at 0.5" in drawn


def test_what_agrees_too_little_is_left_to_the_table() -> None:
    rows, low = pareto.shown(sweep())
    assert low == pytest.approx(0.49, abs=0.01)  # the front begins at 0.6, whose interval begins at 0.54
    assert len(rows) == 5
    rows, low = pareto.shown(sweep(ROWS[:4]))
    assert low == pytest.approx(0.8, abs=0.02)


def test_where_nothing_is_timed_gmacs_go_to_the_right() -> None:
    untimed = tuple(row(one.method, one.ratio, 0.9 + one.ratio / 10, 0.1) for one in ROWS[:4])
    drawn = pareto.picture(sweep(untimed))
    assert places(drawn, "frugal at 0.5 in fp32")[0] < places(drawn, "frugal at 0.7 in fp32")[0]
    assert ">GMACs<" in drawn
    assert "No point was measured." in pareto.picture(sweep(ROWS[5:]))


def test_other_precisions_are_hollow_and_in_the_legend() -> None:
    drawn = pareto.picture(sweep((*ROWS, row("frugal", 0.6, 0.95, 0.05, 1.9, precision="int8"))))
    assert 'class="k0 open"' in drawn
    assert ">in int8<" in drawn


def test_it_stands_alone(tmp_path: Path) -> None:
    root = ElementTree.fromstring(pareto.standalone(sweep()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", pareto.standalone(sweep()))


def test_a_report_of_a_sweep_has_every_point_and_no_benchmark(tmp_path: Path) -> None:
    place = folder(tmp_path / "s", sweep(model="<script>alert(1)</script>"))
    done = api.report([place], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert done.photos == 0
    assert re.findall(r'data-section="(\w+)"', text) == ["sweep"]
    assert "<script" not in text
    assert "dominated by dominated: &lt;b&gt;frugal&lt;/b&gt;" in text
    for words in ("cannot be had: out of reach", "on the front", "agreement from 95.0 % on", "no point"):
        assert words in text
    assert '"on_front"' in (tmp_path / "r.json").read_text()
