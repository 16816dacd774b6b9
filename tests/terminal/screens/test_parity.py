"""A ladder on a screen."""

from __future__ import annotations

from printed import printed, rows_of

from vitrim.exporter.runtime.parity import Errors, Limits, Parity, Rung
from vitrim.terminal.screens.parity import print_parity


def test_a_ladder_is_printed_a_line_a_rung() -> None:
    right = Errors(4, 2e-5, 1e-6, 1.0, 1.0)
    rungs = (
        Rung("torch: a", 4, equal=right, top1=1.0, passed=True),
        Rung("onnx: b", 4, top1=0.75, passed=False, first_offender="kept_3", reason="off"),
    )
    page = printed(print_parity, Parity(1e-4, 1e-5, rungs))
    assert "Parity: FAILED (atol 0.0001)" in page
    first, second = (row for row in rows_of(page) if row[0] in ("torch: a", "onnx: b"))
    assert (first[:3], first[-2:]) == (["torch: a", "4", "-"], ["100.0 %", "ok"])
    assert second[-2:] == ["75.0 %", "FAILED at kept_3"]
    close = printed(print_parity, Parity(1e-4, 1e-5, rungs[:1], Limits(0.9995, 0.98)))
    assert "Parity: passed (cosine 0.9995, agreement 98%)" in close
