"""Where a report is."""

from __future__ import annotations

from printed import printed

from vitrim.recipes.report.write import Written
from vitrim.terminal.screens.report import print_report


def test_a_report_is_named_with_what_is_not_in_it() -> None:
    written = Written("r.html", "r.json", 123456, 1, ("out: no dense graph",))
    assert printed(print_report, written).splitlines() == [
        "Report: r.html (123 kB, 1 photo), data: r.json",
        "Note: out: no dense graph",
    ]
