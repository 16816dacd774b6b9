"""Tests mirror the sources, so that whoever looks for a module's tests guesses right; and no import comes back."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from vitrim.exporter.core.sources import imports_of

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


def test_imports_run_in_no_circle() -> None:
    """Wherever in a module they stand; those that only a type checker sees do not count."""
    rooms = ("exporter", "calibration", "recipes", "terminal")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")] + list(ROOT.glob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    # `from . import costs` names the folder, too.
    graph = {
        name: {other for other in imports_of(name) if not name.startswith(f"{other}.")}
        for name in names
        if name != "__init__"
    }
    assert "recipes.stages.stage" in graph["recipes.pipeline.run"]
    graph["recipes.sweep.result"].remove("recipes.report.write")  # to show itself in a notebook
    TopologicalSorter(graph).prepare()
