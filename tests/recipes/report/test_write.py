from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import report_bundles

from vitrim import api
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.recipes.report import write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return report_bundles.make(tmp_path / "out")


def test_a_page_and_its_data_are_written(out: Path, tmp_path: Path) -> None:
    done = api.report([out], tmp_path / "r.html", count=3)
    text = (tmp_path / "r.html").read_text()
    assert (done.bytes, done.photos, done.notes) == (len(text.encode()), 3, ())
    data = json.loads((tmp_path / "r.json").read_text())
    (plain,) = data["bundles"]
    assert data["format"] == "vitrim-report/1"
    assert plain["photos"][0] == 0  # whose answer changed
    assert [one["changed"] for one in plain["answers"]] == [True, *[False] * 5]
    assert plain["survival"]["1"] == [1.0, 0, 0, 0, 0, *[1.0] * 11]
    assert data["benchmarks"]["out"]["speedup"] == pytest.approx(1.25, abs=0.01)


def test_reports_are_replaced_and_nothing_else(out: Path, tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        api.report([out], tmp_path / "r.html", images="none", note=told.append)
    assert told == [
        f"replaces the report that was at {tmp_path / 'r.html'}",
        f"replaces the report's data that was at {tmp_path / 'r.json'}",
    ]
    (tmp_path / "my.json").write_text("{}")
    with pytest.raises(InputError, match=r"my.json exists and is no report's data"):
        api.report([out], tmp_path / "my.html")
    (tmp_path / "site.html").write_text("<p>mine")
    with pytest.raises(InputError, match=r"site.html exists and is no report"):
        api.report([out], tmp_path / "site.html")
    api.report([out], tmp_path / "site.html", force=True)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("r.txt", {}, "is no name of a page; name a file that ends in .html"),
        ("out/r.html", {}, "lies in the bundle"),
        ("r.html", {"images": "all"}, "images is 'all'; it can be 'golden' or 'none'"),
        ("r.html", {"count": 257}, "257 photos cannot be shown; give a number from 0 to 256"),
    ],
)
def test_what_cannot_be_is_refused(
    out: Path, tmp_path: Path, name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        api.report([out], tmp_path / name, **options)  # type: ignore[arg-type]


def test_a_benchmark_is_not_replaced_by_its_report(out: Path, tmp_path: Path) -> None:
    timed = tmp_path / "orin.json"
    timed.write_bytes((out / "bench.json").read_bytes())
    with pytest.raises(InputError, match="which this run reads"):
        api.report([timed], tmp_path / "orin.html", force=True)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, out: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(write, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLackError, match="jinja2 and pillow not installed.*: pip install jinja2 pillow"):
        api.report([out], tmp_path / "r.html")
    assert write.in_frame(out, 2) is None


def test_a_notebook_has_it_in_a_frame(out: Path, tmp_path: Path) -> None:
    found = write.in_frame(out, 2)
    assert found is not None
    inside = re.fullmatch(r'<iframe title="vitrim report" sandbox srcdoc="([^"]*)" style="[^"]*"></iframe>', found)
    assert inside is not None
    page = unescape(inside[1])
    assert page.count("data:image/jpeg;base64,") == 2
    assert write.in_frame(tmp_path / "gone", 2) is None
