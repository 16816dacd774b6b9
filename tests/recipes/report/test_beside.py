"""The page that an export writes beside its bundle: where it goes, what it never replaces, and when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import report_bundles

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.recipes.report import beside, write
from vitrim.recipes.report.beside import PageBeside, page_beside


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return report_bundles.make(tmp_path / "out")


def page_at(out: Path) -> PageBeside:
    found = page_beside(out, True, {})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "report", "page"),
    [
        ("out", True, "out.html"),
        ("deit.v2", True, "deit.v2.html"),
        ("out", "pages/mine.HTM", "pages/mine.HTM"),
        ("out", Path("mine.html"), "mine.html"),
    ],
)
def test_a_page_has_the_folder_s_name_or_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, report: bool | str | Path, page: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = page_beside(tmp_path / name, report, {})
    assert found is not None
    assert found.path == tmp_path / page
    assert page_beside(tmp_path / name, False, {}) is page_beside(tmp_path / name, None, {}) is None


def test_the_page_is_the_bundle_s_report_without_its_data(out: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a report is replaced
        assert page_at(out).write() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.html"]
    api.report([out], tmp_path / "r.html")
    assert (tmp_path / "out.html").read_text() == (tmp_path / "r.html").read_text()


FOREIGN: dict[str, tuple[Callable[[Path], object], bool | str, str]] = {
    "page": (lambda place: (place / "out.html").write_text("<p>mine"), True, "out.html exists and is no report; move"),
    "folder": (lambda place: (place / "out.html").mkdir(), True, "out.html is a folder; move it, or give --no-report"),
    "link": (lambda place: (place / "out.html").symlink_to("x"), True, "out.html is a link; move it, or give --no-rep"),
    "inside": (lambda place: None, "new/r.html", "lies in the bundle, which stays as it was published"),
    "name": (lambda place: None, "r.txt", "is no name of a page; name a file that ends in .html"),
    "read": (lambda place: (place / "t.html").write_text("{}"), "t.html", "is the recipe, which this run reads"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_the_export_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    make, report, words = FOREIGN[kind]
    make(tmp_path)
    with pytest.raises(InputError, match=words):
        page_beside(tmp_path / ("out" if report is True else "new"), report, {"the recipe": tmp_path / "t.html"})


def damage(out: Path, patch: pytest.MonkeyPatch) -> None:
    (out / "budget.json").write_text("{}")


def lack(out: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(write, "find_spec", lambda name: None if name == "jinja2" else name)


def take(out: Path, patch: pytest.MonkeyPatch) -> None:
    out.with_name("out.html").write_text("<p>mine")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lack, "jinja2 not installed, which a report needs: pip install jinja2"),
        (damage, "budget.json is not the file that was published"),
        (take, "out.html exists and is no report"),
    ],
)
def test_what_fails_is_said_with_the_command_for_later(
    out: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, pytest.MonkeyPatch], None], words: str
) -> None:
    page = page_at(out)
    spoil(out, monkeypatch)
    failed = page.write()
    assert failed is not None
    assert failed.startswith("not written: ")
    assert words in failed
    assert failed.endswith(f"; later: vitrim report {out} -o {page.path}")
    assert page.path.exists() == (spoil is take)
    assert spoil is not take or page.path.read_text() == "<p>mine"


def test_a_fault_of_vitrim_s_own_is_not_swallowed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path, photos: int) -> str:
        return json.loads(folder.name)["page"]

    monkeypatch.setattr(beside, "page_of", fails)
    with pytest.raises(json.JSONDecodeError):
        page_at(out).write()
