"""Which modules one runs, and their hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrim.exporter.core import sources


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of four modules: a imports b and (for types) d, b imports c inside a function."""
    root = tmp_path / "package"
    (root / "room").mkdir(parents=True)
    (root / "room" / "__init__.py").write_text("")
    (root / "a.py").write_text(
        "from typing import TYPE_CHECKING\nfrom .room import b\nif TYPE_CHECKING:\n    from . import d\nimport os\n"
    )
    (root / "room" / "b.py").write_text("def f():\n    from ..c import x\n    return x\n")
    (root / "c.py").write_text("x = 1\n")
    (root / "d.py").write_text("from . import a\n")
    monkeypatch.setattr(sources, "ROOT", root)
    forget()
    yield root  # type: ignore[misc]
    forget()


def forget() -> None:
    sources.imports_of.cache_clear()
    sources._hash_of.cache_clear()


def test_imports_are_followed_wherever_they_stand(package: Path) -> None:
    assert sources.closure("a") == ["a", "c", "room", "room.b"]
    assert sources.closure("d") == ["a", "c", "d", "room", "room.b"]
    assert sources.closure("c") == ["c"]


def test_the_hash_follows_the_code_that_runs(package: Path) -> None:
    before = {name: sources.digest(name) for name in ("a", "c", "d")}
    (package / "d.py").write_text("from . import a  # other words\n")
    forget()
    assert sources.digest("a") == before["a"]
    assert sources.digest("d") != before["d"]
    (package / "c.py").write_text("x = 2\n")
    forget()
    assert sources.digest("a") != before["a"]
    assert sources.digest("c") != before["c"]


def test_vitrim_s_own_modules_are_found() -> None:
    found = sources.closure("recipes.stages.trace")
    assert {"exporter.graph.trace", "exporter.pruning.vit", "exporter.core.errors"} <= set(found)
    assert all(sources.path_of(name).is_file() for name in found)
