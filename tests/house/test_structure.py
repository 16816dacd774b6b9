"""Tests mirror the sources: whoever looks for a module's tests guesses right."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("room", ["exporter", "calibration", "recipes", "terminal", "."])
def test_every_module_has_its_test_file(room: str) -> None:
    folder = ROOT / room
    found = folder.rglob("*.py") if room != "." else folder.glob("*.py")
    modules = [path.relative_to(ROOT) for path in found if path.name != "__init__.py"]
    assert modules
    without = [
        str(path) for path in modules if not (ROOT / "tests" / path.parent / f"test_{path.name.lstrip('_')}").is_file()
    ]
    assert without == []


def test_every_test_file_has_its_module() -> None:
    houses = {"house", "data"}
    files = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")]
    stray = [
        str(path)
        for path in files
        if path.parts[0] not in houses
        and not (ROOT / path.parent / path.name.removeprefix("test_")).is_file()
        and not (ROOT / path.parent / path.stem.removeprefix("test_")).is_dir()
    ]
    # The package itself; every target's whole export; methods on real photos.
    assert sorted(stray) == ["recipes/pipeline/test_targets.py", "test_init.py", "test_photos.py"]
