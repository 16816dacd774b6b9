"""Bundles: every byte is checked, and what is no bundle is never replaced."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import broken, fuzz, held, mangled
from hypothesis import given
from hypothesis import strategies as st
from small_bundles import two_sizes

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import finite
from vitrim.exporter.runtime import bundle, publish
from vitrim.exporter.runtime.bench.report import TimedBundle
from vitrim.exporter.runtime.rungs import close, compare

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


def test_a_size_of_a_bundle_reads_as_a_bundle_of_one(tmp_path: Path) -> None:
    root = two_sizes(tmp_path / "b", "2x5")
    manifest = bundle.verify(root)
    files, own = bundle.open_size(root, manifest)
    assert (files.size, own, manifest.own_size) == (None, manifest, "1x1")
    assert bundle.open_size(root, manifest, 1)[1] is manifest
    files, further = bundle.open_size(root, manifest, (2, 5))
    assert files / "model.onnx" == root / "model.2x5.onnx"
    assert set(further.files) == {"model.onnx", "dense.onnx", "golden.npz", "parity.json"}
    assert further.files["golden.npz"] == manifest.files["golden.2x5.npz"]
    assert (further.input, further.preprocess, further.engine) == ({"shape": [4, 3]}, None, None)
    built = manifest.with_engine("2x5")
    assert (built.engine, built.of("2x5").engine) == (None, "built")
    assert (manifest.with_engine(None).engine, manifest.with_engine("1x1").engine) == ("built", "built")
    assert bundle.load_golden(files)["image"].shape == (4, 3)
    for other in ("5x2", "2x50"):
        with pytest.raises(InputError, match=f"^the bundle has no graphs for {other}; it has 1x1, 2x5: export it anew"):
            bundle.open_size(root, manifest, other)
    with pytest.raises(InputError, match="has no graphs for 2x5; it has one size: export it anew with export.sizes$"):
        bundle.open_size(root, bundle.verify(make(tmp_path / "one")), "2x5")
    bundle.refuse_foreign(root)  # all of its names are vitrim's
    (root / "model.2x5.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="model.2x5.onnx is not the file that was published"):
        bundle.verify(root)


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
    np.savez(tmp_path / "golden.npz", image=np.zeros((2, 3)), logits=np.ones((2, 4)))
    assert bundle.load_golden(tmp_path)["image"].shape == (2, 3)
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


def use_bundle(folder: Path) -> None:
    manifest = bundle.verify(folder)
    assert manifest.resolved_target.name
    json.dumps(TimedBundle.of(manifest).to_json(), allow_nan=False)
    json.dumps(manifest.to_json(), allow_nan=False)


@fuzz(50)
@given(data=st.data())
def test_any_manifest_that_is_sealed_again_is_whole_or_one_line(data: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    changed = data.draw(mangled(json.loads(path.read_text())))
    path.write_text(bundle.seal(changed) if isinstance(changed, dict) else json.dumps(changed))
    held(use_bundle, folder)


@fuzz(40)
@given(data=st.data())
def test_any_bytes_of_a_manifest_are_one_line(data: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_bytes(data.draw(broken(path.read_bytes())))
    held(use_bundle, folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_cannot_be_looked_into_is_no_whole_bundle(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "more").mkdir()
    (folder / "more" / "extra.so").write_text("x")
    (folder / "more").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot read .*more: permission denied"):
            bundle.verify(folder)
    finally:
        (folder / "more").chmod(0o700)


def test_what_the_system_does_not_let_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "b")
    (folder / "more").mkdir()
    scan = os.scandir

    def forbidden(path: Any = ".") -> Any:
        if os.fspath(path).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)  # what permissions do to everybody but root
    for look in (bundle.verify, lambda root: bundle.publish(root, root)):
        with pytest.raises(InputError, match=r"cannot read .*more: permission denied"):
            look(folder)


def test_a_link_to_a_folder_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="more is not in the manifest"):
        bundle.verify(folder)


GOLDEN: dict[str, Any] = {
    "image": np.zeros((4, 3, 2, 2), np.float32),
    "logits": np.ones((4, 5), np.float32),
    "kept_1": np.tile(np.arange(3), (4, 1)),
    "gap_1": np.ones(4, np.float32),
    "probabilities": np.ones((4, 2), np.float32),
    "classes": np.tile(np.arange(2, dtype=np.int32), (4, 1)),
}


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("image", np.array(["a", "b"]), "image is <U1 [2], but must be images [n, ...]"),
        ("image", np.float32(1), "image is float32 [], but must be images"),
        ("image", np.zeros((0, 3), np.float32), "image is float32 [0, 3]"),
        ("logits", np.ones(4, np.float32), "logits is float32 [4], but must be numbers [n, classes]"),
        ("logits", np.array("text"), "logits is <U4 []"),
        ("logits", np.ones((4, 5), np.complex64), "logits is complex64 [4, 5]"),
        ("logits", np.ones((3, 5), np.float32), "logits is float32 [3, 5]"),
        ("kept_1", np.ones((4, 3), np.float32), "kept_1 is float32 [4, 3], but must be whole numbers [n, tokens]"),
        ("kept_x", np.ones((4, 3), np.int64), "kept_x is int64 [4, 3], but must be named by a block"),
        ("kept_²", np.ones((4, 3), np.int64), "kept_² is int64 [4, 3], but must be named by a block"),
        ("gap_1", np.ones((4, 1), np.float32), "gap_1 is float32 [4, 1], but must be numbers [n]"),
        ("classes", np.ones((4, 2), bool), "classes is bool [4, 2]"),
    ],
)
def test_a_golden_array_of_another_form_is_named(name: str, values: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / layout.GOLDEN, **GOLDEN)
    assert set(bundle.load_golden(tmp_path)) == set(GOLDEN)
    np.savez(tmp_path / layout.GOLDEN, **(GOLDEN | {name: values}))
    with pytest.raises(InputError, match="golden.npz is damaged: ") as caught:
        bundle.load_golden(tmp_path)
    assert said in str(caught.value) or "logits is float32 [4, 5]" in str(
        caught.value
    )  # of as many images as there are


def use_golden(folder: Path) -> None:
    golden = bundle.load_golden(folder)
    candidate = {name: values for name, values in GOLDEN.items() if name not in ("image", "gap_1")}
    json.dumps(finite(compare("a", golden, candidate, atol=1e-3, tie=1e-3).to_json()), allow_nan=False)
    json.dumps(finite(close("a", golden, candidate, cosine=0.9, agreement=0.9).to_json()), allow_nan=False)


kinds = st.sampled_from(["?", "i1", "u8", "i8", "f2", "f4", "f8", "c8", "U3", "S2", "M8[s]", "m8[s]", "V4"])
shapes = st.sampled_from([(), (0,), (4,), (4, 0), (4, 3), (4, 5), (5, 5), (4, 3, 2, 2), (1,) * 20])


@fuzz(100)
@given(data=st.data())
def test_any_golden_arrays_are_held_against_or_one_line(data: Any, tmp_path: Path) -> None:
    golden = dict(GOLDEN)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([*GOLDEN, "kept_2", "merged_1", "gap_x", "kept_", "other", "kept_10000"]))
        golden[name] = np.zeros(data.draw(shapes), data.draw(kinds))
        if data.draw(st.booleans()):
            golden.pop(data.draw(st.sampled_from(sorted(golden))))
    values = data.draw(st.sampled_from([None, np.nan, np.inf, -1, 10**9]))
    if values is not None and "logits" in golden and golden["logits"].dtype in (np.float32, np.float64):
        golden["logits"] = np.full_like(golden["logits"], values)
    np.savez(tmp_path / layout.GOLDEN, **golden)
    with np.errstate(all="raise"):
        held(use_golden, tmp_path)


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


def test_names_of_classes_are_in_one_line_each_and_may_be_missing(tmp_path: Path) -> None:
    bundle.write_manifest(tmp_path, {}, [])
    assert bundle.load_labels(tmp_path, bundle.read_manifest(tmp_path)) is None
    for text, wanted in (('["cat", "great\\nwhite", 3]', ["cat", "great white", "3"]), ('{"a": 1}', None)):
        (tmp_path / "labels.json").write_text(text)
        bundle.write_manifest(tmp_path, {}, [])
        if wanted is None:
            with pytest.raises(InputError, match=r"labels.json is no list of names; export the bundle anew"):
                bundle.load_labels(tmp_path, bundle.read_manifest(tmp_path))
        else:
            assert bundle.load_labels(tmp_path, bundle.read_manifest(tmp_path)) == wanted
