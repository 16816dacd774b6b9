"""Bundles: every byte is checked, and what is no bundle is never replaced."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime import bundle, publish

OLD = Path(__file__).parents[2] / "data" / "0.1.0"


def make(folder: Path, text: str = "one") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text * 1000)
    (folder / "budget.json").write_text(text)
    bundle.write_manifest(folder, {"vitrim": "0"}, ["vitrim", "export"], target="ort-cpu")
    return folder


def test_a_whole_bundle_verifies(tmp_path: Path) -> None:
    manifest = bundle.verify(make(tmp_path / "b"))
    assert manifest.target == "ort-cpu"
    assert manifest.resolved_target.name == "ort-cpu"
    assert manifest.precision == bundle.GraphPrecision("fp32", ())
    assert set(manifest.files) == {"model.onnx", "budget.json"}
    assert manifest.files["budget.json"].bytes == 3


def test_one_changed_byte_in_any_file_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(InputError, match=path.name):
                bundle.verify(folder)
        path.write_bytes(whole)
    bundle.verify(folder)


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    whole = path.read_bytes()
    for position in range(len(whole)):
        for flip in (1, 0x20) if position % 16 == 0 else (1,):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            with pytest.raises(InputError, match=layout.MANIFEST):
                bundle.read_manifest(folder)
    path.write_bytes(whole)
    assert {**bundle.read_manifest(folder).to_json(), "sha256": json.loads(whole)["sha256"]} == json.loads(whole)


def test_a_damaged_manifest_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    data = json.loads(path.read_text())
    digest = data["files"]["model.onnx"]["sha256"]
    data["files"]["model.onnx"]["sha256"] = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    path.write_text(bundle.seal(data))
    with pytest.raises(InputError, match=r"model\.onnx is not the file that was published"):
        bundle.verify(folder)
    for text in ("{", "[]", '{"format": "other"}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(InputError, match="damaged"):
            bundle.verify(folder)


def test_missing_extra_and_linked_files_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "extra.bin").write_text("x")
    with pytest.raises(InputError, match=r"extra\.bin is not in the manifest"):
        bundle.verify(folder)
    (folder / "extra.bin").unlink()
    (folder / "budget.json").rename(tmp_path / "outside.json")
    with pytest.raises(InputError, match=r"budget\.json is missing"):
        bundle.verify(folder)
    (folder / "budget.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(InputError, match=r"budget\.json is a link"):
        bundle.verify(folder)
    (folder / "budget.json").unlink()
    os.mkfifo(folder / "budget.json")
    with pytest.raises(InputError, match=r"budget\.json is no regular file"):  # and does not wait for a writer
        bundle.verify(folder)
    (folder / "budget.json").unlink()
    (tmp_path / "outside.json").rename(folder / "budget.json")
    bundle.verify(folder, needs=("model.onnx",))
    with pytest.raises(InputError, match=r"has no golden\.npz"):
        bundle.verify(folder, needs=("model.onnx", "golden.npz"))
    (folder / layout.MANIFEST).rename(tmp_path / "m.json")
    (folder / layout.MANIFEST).symlink_to(tmp_path / "m.json")
    with pytest.raises(InputError, match="is a link"):
        bundle.verify(folder)


def test_paths_out_of_the_bundle_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    data = json.loads(path.read_text())
    for name, why in (("../secret", "outside"), ("/etc/passwd", "outside"), ("a\0b", "missing"), ("", "missing")):
        path.write_text(bundle.seal({**data, "files": {name: {"sha256": "0", "bytes": 1}}}))
        with pytest.raises(InputError, match=why):
            bundle.verify(folder)


def test_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no bundle"):
        bundle.verify(tmp_path / "none")
    with pytest.raises(InputError, match=r"is not a bundle: it has no manifest\.json"):
        bundle.verify(tmp_path)


@pytest.mark.parametrize(("name", "precision", "nodes"), [("manifest", "fp32", 0), ("manifest-int8", "int8", 129)])
def test_files_of_0_1_0_load(tmp_path: Path, name: str, precision: str, nodes: int) -> None:
    text = (OLD / f"{name}.json").read_text()
    (tmp_path / layout.MANIFEST).write_text(text)
    found = bundle.read_manifest(tmp_path)  # its seal holds
    assert (found.precision.name, len(found.precision.float32_nodes)) == (precision, nodes)
    assert found.files["model.onnx"].bytes > 300_000
    assert bundle.seal(found.to_json()) == text  # to the byte


def test_a_manifest_of_a_newer_vitrim_keeps_what_this_one_does_not_know(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_text(bundle.seal(json.loads(path.read_text()) | {"colour": {"red": 1}}))
    found = bundle.verify(folder)
    assert found.extra == {"colour": {"red": 1}}
    bundle.renew_manifest(folder, replace(found, engine="built"))
    again = json.loads(path.read_text())
    assert (again["colour"], again["engine"]) == ({"red": 1}, "built")
    assert bundle.verify(folder).extra == found.extra


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": {"name": "fp4"}}, 'precision.name is "fp4", which this vitrim does not know (it knows fp32'),
        ({"precision": ["fp16"]}, "precision is a list, but must be an object"),
        ({"precision": "fp16"}, 'precision is "fp16", but must be an object'),
        ({"batch": "two"}, 'batch is "two", but must be a whole number or null'),
        ({"files": {"a": {"sha256": 3, "bytes": 1}}}, "files.a.sha256 is 3, but must be text"),
    ],
)
def test_a_manifest_with_another_type_in_it_names_the_key(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_text(bundle.seal(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        bundle.verify(folder)
    assert f"manifest.json: {said}" in str(caught.value)


def test_the_precision_of_a_manifest() -> None:
    for entry, wanted in (
        ({}, ("fp32", ())),
        ({"precision": {"name": "fp16", "float32_nodes": ["/norm"]}}, ("fp16", ("/norm",))),
        ({"precision": {"name": "int8"}}, ("int8", ())),
    ):
        plain = {"format": bundle.FORMAT, "created": "", "command": [], "versions": {}, "files": {}}
        found = bundle.Manifest.from_json(plain | entry, "m").precision
        assert (found.name, found.float32_nodes) == wanted


def test_golden_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        bundle.load_golden(tmp_path)
    np.savez(tmp_path / "golden.npz", image=np.zeros(3))
    with pytest.raises(InputError, match="it has no logits"):
        bundle.load_golden(tmp_path)
    with open(tmp_path / "golden.npz", "wb") as stream:
        np.save(stream, np.zeros(3))  # one array, no archive
    with pytest.raises(InputError, match="damaged"):
        bundle.load_golden(tmp_path)
    np.savez(tmp_path / "golden.npz", image=np.zeros(3), logits=np.ones(2))
    assert bundle.load_golden(tmp_path)["image"].shape == (3,)
    (tmp_path / "golden.npz").write_bytes((tmp_path / "golden.npz").read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        bundle.load_golden(tmp_path)


def test_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"is not a vitrim bundle \(it holds thesis\.tex\)"):
        bundle.publish(make(publish.staging_folder(tmp_path / "docs")), tmp_path / "docs")
    assert (tmp_path / "docs" / "thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file or a link"):
        bundle.refuse_foreign(tmp_path / "file")
    web = tmp_path / "web"  # web applications and browser extensions have a manifest.json too
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "app"}')
    with pytest.raises(InputError, match="is another's"):
        bundle.refuse_foreign(web)
    (web / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="remove the folder yourself"):
        bundle.refuse_foreign(web)


def test_a_bundle_with_a_users_file_is_not_replaced_but_a_damaged_one_is(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "budget.json").write_text("damaged")
    bundle.refuse_foreign(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt in it is not vitrim's"):
        bundle.refuse_foreign(folder)


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
            bundle.refuse_foreign(place)
    assert not [path for path in seen if Path(path) not in (tmp_path / "home", Path("/"))]
    folder = make(tmp_path / "b")
    (folder / "a user's").mkdir()
    (folder / "a user's" / "photo").write_text("mine")
    for name in ("z1", "z2"):
        (folder / name).mkdir()
    seen.clear()
    with pytest.raises(InputError, match="photo in it is not vitrim's"):
        bundle.refuse_foreign(folder)
    assert str(folder / "a user's") in seen
    assert str(folder / "z1") not in seen  # no further


def test_a_manifest_that_claims_a_user_s_files_gives_none_of_them_away(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "photo.jpg").write_text("mine")
    data = json.loads((folder / layout.MANIFEST).read_text())
    data["files"]["photo.jpg"] = {"sha256": "0" * 64, "bytes": 4}
    (folder / layout.MANIFEST).write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"photo\.jpg in it is not vitrim's"):
        bundle.refuse_foreign(folder)
    data["files"]["photo.jpg"] = {"sha256": bundle.sha256(folder / "photo.jpg"), "bytes": 4}  # of a newer vitrim
    (folder / layout.MANIFEST).write_text(json.dumps(data))
    bundle.refuse_foreign(folder)
    (folder / "photo.jpg").unlink()
    (folder / "photo.jpg").symlink_to(folder / "budget.json")
    with pytest.raises(InputError, match=r"photo\.jpg in it is not vitrim's"):
        bundle.refuse_foreign(folder)


def test_no_bundle_is_published_into_another(tmp_path: Path) -> None:
    outer = make(tmp_path / "outer")
    (tmp_path / "way").symlink_to(outer)
    for place in (outer / "inner", outer / "deep" / "inner", tmp_path / "way" / "inner"):
        with pytest.raises(InputError, match=f"lies in the bundle {outer}, which stays as it was published"):
            bundle.refuse_foreign(place)
    bundle.refuse_foreign(outer)
    assert (bundle.is_bundle(outer), bundle.is_bundle(tmp_path)) == (True, False)
    bundle.refuse_in_bundle(tmp_path / "beside.json")
