from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.recipes.report import svg

HOSTILE = "</title><script>alert('1')</script>\"&"


def test_texts_and_values_are_escaped_and_markup_is_not_twice() -> None:
    drawn = svg.picture(10, HOSTILE, svg.text(1, 2, HOSTILE), svg.bar(0, 0, 5, 5, "bar", HOSTILE))
    root = ElementTree.fromstring(drawn)
    assert [one.tag for one in root.iter()] == ["svg", "title", "text", "rect", "title"]
    assert [one.text for one in root.iter() if one.tag in ("title", "text")] == [HOSTILE] * 3
    assert ElementTree.fromstring(svg.element("a", name_=HOSTILE, gone=None)).attrib == {"name": HOSTILE}


def test_numbers_are_short() -> None:
    assert svg.line(0, 1 / 3, 10.0, 2, "x") == '<line x1="0" y1="0.33" x2="10" y2="2" class="x"></line>'


def test_scales() -> None:
    assert svg.linear(0, 10, 0, 100)(2.5) == 25
    assert svg.linear(5, 5, 0, 100)(5) == 0
    assert svg.logarithmic(1e-9, 1, 0, 90)(1e-6) == pytest.approx(30)
    assert svg.logarithmic(1e-9, 1, 0, 90)(0) == 0
    assert svg.logarithmic(1e-9, 1, 0, 90)(7) == 90


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = svg.ticks(low, low + span)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)


def test_an_axis_has_its_unit_last() -> None:
    drawn = svg.axis(svg.linear(0, 2, 0, 100), [0, 1, 2], 0, 10, "ms")
    assert drawn.count("<line") == 3
    assert ">2 ms</text>" in drawn
