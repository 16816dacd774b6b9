"""What is no bundle, and what lies in one, is never replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_bundles import sealed_bundle

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime import publish
from vitrim.exporter.runtime.bundles.place import is_bundle, publish_bundle, refuse_foreign, refuse_in_bundle


def test_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"is not a vitrim bundle \(it holds thesis\.tex\)"):
        publish_bundle(sealed_bundle(publish.staging_folder(tmp_path / "docs")), tmp_path / "docs")
    assert (tmp_path / "docs" / "thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file or a link"):
        refuse_foreign(tmp_path / "file")
    web = tmp_path / "web"  # web applications and browser extensions have a manifest.json too
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "app"}')
    with pytest.raises(InputError, match="is another's"):
        refuse_foreign(web)
    (web / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="remove the folder yourself"):
        refuse_foreign(web)


def test_a_bundle_with_a_users_file_is_not_replaced_but_a_damaged_one_is(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (folder / "budget.json").write_text("damaged")
    refuse_foreign(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt in it is not vitrim's"):
        refuse_foreign(folder)


def test_what_has_no_manifest_is_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "deep").mkdir(parents=True)
    seen = list[str]()
    real = os.scandir

    def scandir(path: Any) -> Any:
        seen.append(os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for place in (tmp_path / "home", Path("/")):
        with pytest.raises(InputError, match="is not a vitrim bundle"):
            refuse_foreign(place)
    assert not [path for path in seen if Path(path) not in (tmp_path / "home", Path("/"))]
    folder = sealed_bundle(tmp_path / "b")
    (folder / "a user's").mkdir()
    (folder / "a user's" / "photo").write_text("mine")
    for name in ("z1", "z2"):
        (folder / name).mkdir()
    seen.clear()
    with pytest.raises(InputError, match="photo in it is not vitrim's"):
        refuse_foreign(folder)
    assert str(folder / "a user's") in seen
    assert str(folder / "z1") not in seen  # no further


def test_a_manifest_that_claims_a_user_s_files_gives_none_of_them_away(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (folder / "photo.jpg").write_text("mine")
    data = json.loads((folder / layout.MANIFEST).read_text())
    data["files"]["photo.jpg"] = {"sha256": "0" * 64, "bytes": 4}
    (folder / layout.MANIFEST).write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"photo\.jpg in it is not vitrim's"):
        refuse_foreign(folder)
    data["files"]["photo.jpg"] = {"sha256": sha256(folder / "photo.jpg"), "bytes": 4}  # of a newer vitrim
    (folder / layout.MANIFEST).write_text(json.dumps(data))
    refuse_foreign(folder)
    (folder / "photo.jpg").unlink()
    (folder / "photo.jpg").symlink_to(folder / "budget.json")
    with pytest.raises(InputError, match=r"photo\.jpg in it is not vitrim's"):
        refuse_foreign(folder)


def test_no_bundle_is_published_into_another(tmp_path: Path) -> None:
    outer = sealed_bundle(tmp_path / "outer")
    (tmp_path / "way").symlink_to(outer)
    for place in (outer / "inner", outer / "deep" / "inner", tmp_path / "way" / "inner"):
        with pytest.raises(InputError, match=f"lies in the bundle {outer}, which stays as it was published"):
            refuse_foreign(place)
    refuse_foreign(outer)
    assert (is_bundle(outer), is_bundle(tmp_path)) == (True, False)
    refuse_in_bundle(tmp_path / "beside.json")
