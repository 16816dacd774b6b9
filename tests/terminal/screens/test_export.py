"""The end of an export."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from printed import printed, rows_of

from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.runtime.parity import Parity
from vitrim.terminal.screens.export import print_export


def test_an_export_for_another_machine_says_where_to_time_it() -> None:
    seen = Fidelity(images=40, agreement=0.75, kl=0.1)
    parts = {"widths": None, "budget": None, "bench": None, "precision": None, "engine": None}
    parts |= {"choice": None, "gate": None, "size": "64x64", "sizes": {}, "report": None, "no_report": None}
    done = SimpleNamespace(fidelity=seen, parity=Parity(1e-4, 1e-5, ()), folder="out", **parts)
    page = printed(print_export, done)
    assert "\nSpeed: to be timed on the device: python3 run_on_device.py bench\n" in page
    assert "median ms" not in page
    assert "Image sizes" not in page
    assert page.endswith("\nBundle: out\nTo look at it: vitrim report out -o report.html\n")
    done.no_report = "not written: jinja2 not installed"
    assert printed(print_export, done).endswith("\nReport: not written: jinja2 not installed\n")
    done.report, done.no_report = Path("out.html"), None
    assert printed(print_export, done).endswith("\nBundle: out\nReport: out.html\n")
    done.sizes = {"48x80": done}
    page = printed(print_export, done)
    assert "Image sizes; all above is 64x64" in page
    assert rows_of(page)[-2:] == [[size, "-", "-", "75.0%", "passed", "-", "-", "-"] for size in ("64x64", "48x80")]
