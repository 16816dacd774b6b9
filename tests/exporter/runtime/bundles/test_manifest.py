"""What a bundle says of itself: sealed, read whatever is in it, of older and newer versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fuzz import broken, fuzz, held, mangled
from hypothesis import given
from hypothesis import strategies as st
from small_bundles import sealed_bundle, two_sizes

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.report import TimedBundle
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.manifest import (
    FORMAT,
    Manifest,
    open_size,
    read_manifest,
    renew_manifest,
    seal,
)
from vitrim.exporter.runtime.bundles.place import refuse_foreign
from vitrim.exporter.runtime.bundles.verify import verify_bundle

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    whole = path.read_bytes()
    for position in range(len(whole)):
        for flip in (1, 0x20) if position % 16 == 0 else (1,):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            with pytest.raises(InputError, match=layout.MANIFEST):
                read_manifest(folder)
    path.write_bytes(whole)
    assert {**read_manifest(folder).to_json(), "sha256": json.loads(whole)["sha256"]} == json.loads(whole)


def test_a_damaged_manifest_is_found(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    data = json.loads(path.read_text())
    digest = data["files"]["model.onnx"]["sha256"]
    data["files"]["model.onnx"]["sha256"] = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    path.write_text(seal(data))
    with pytest.raises(InputError, match=r"model\.onnx is not the file that was published"):
        verify_bundle(folder)
    for text in ("{", "[]", '{"format": "other"}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(InputError, match="damaged"):
            verify_bundle(folder)


def test_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no bundle"):
        verify_bundle(tmp_path / "none")
    with pytest.raises(InputError, match=r"is not a bundle: it has no manifest\.json"):
        verify_bundle(tmp_path)


@pytest.mark.parametrize(("name", "precision", "nodes"), [("manifest", "fp32", 0), ("manifest-int8", "int8", 129)])
def test_files_of_0_1_0_load(tmp_path: Path, name: str, precision: str, nodes: int) -> None:
    text = (OLD / f"{name}.json").read_text()
    (tmp_path / layout.MANIFEST).write_text(text)
    found = read_manifest(tmp_path)  # its seal holds
    assert (found.precision.name, len(found.precision.float32_nodes)) == (precision, nodes)
    assert found.files["model.onnx"].bytes > 300_000
    assert seal(found.to_json()) == text  # to the byte


def test_a_manifest_of_a_newer_vitrim_keeps_what_this_one_does_not_know(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_text(seal(json.loads(path.read_text()) | {"colour": {"red": 1}}))
    found = verify_bundle(folder)
    assert found.extra == {"colour": {"red": 1}}
    renew_manifest(folder, replace(found, engine="built"))
    again = json.loads(path.read_text())
    assert (again["colour"], again["engine"]) == ({"red": 1}, "built")
    assert verify_bundle(folder).extra == found.extra


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
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_text(seal(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        verify_bundle(folder)
    assert f"manifest.json: {said}" in str(caught.value)


def test_a_size_of_a_bundle_reads_as_a_bundle_of_one(tmp_path: Path) -> None:
    root = two_sizes(tmp_path / "b", "2x5")
    manifest = verify_bundle(root)
    files, own = open_size(root, manifest)
    assert (files.size, own, manifest.own_size) == (None, manifest, "1x1")
    assert open_size(root, manifest, 1)[1] is manifest
    files, further = open_size(root, manifest, (2, 5))
    assert files / "model.onnx" == root / "model.2x5.onnx"
    assert set(further.files) == {"model.onnx", "dense.onnx", "golden.npz", "parity.json"}
    assert further.files["golden.npz"] == manifest.files["golden.2x5.npz"]
    assert (further.input, further.preprocess, further.engine) == ({"shape": [4, 3]}, None, None)
    built = manifest.with_engine("2x5")
    assert (built.engine, built.of("2x5").engine) == (None, "built")
    assert (manifest.with_engine(None).engine, manifest.with_engine("1x1").engine) == ("built", "built")
    assert load_golden(files)["image"].shape == (4, 3)
    for other in ("5x2", "2x50"):
        with pytest.raises(InputError, match=f"^the bundle has no graphs for {other}; it has 1x1, 2x5: export it anew"):
            open_size(root, manifest, other)
    with pytest.raises(InputError, match="has no graphs for 2x5; it has one size: export it anew with export.sizes$"):
        open_size(root, verify_bundle(sealed_bundle(tmp_path / "one")), "2x5")
    refuse_foreign(root)  # all of its names are vitrim's
    (root / "model.2x5.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="model.2x5.onnx is not the file that was published"):
        verify_bundle(root)


def test_the_precision_of_a_manifest() -> None:
    for entry, wanted in (
        ({}, ("fp32", ())),
        ({"precision": {"name": "fp16", "float32_nodes": ["/norm"]}}, ("fp16", ("/norm",))),
        ({"precision": {"name": "int8"}}, ("int8", ())),
    ):
        plain = {"format": FORMAT, "created": "", "command": [], "versions": {}, "files": {}}
        found = Manifest.from_json(plain | entry, "m").precision
        assert (found.name, found.float32_nodes) == wanted


def use_bundle(folder: Path) -> None:
    manifest = verify_bundle(folder)
    assert manifest.resolved_target.name
    json.dumps(TimedBundle.of(manifest).to_json(), allow_nan=False)
    json.dumps(manifest.to_json(), allow_nan=False)


@fuzz(50)
@given(data=st.data())
def test_any_manifest_that_is_sealed_again_is_whole_or_one_line(data: Any, tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    changed = data.draw(mangled(json.loads(path.read_text())))
    path.write_text(seal(changed) if isinstance(changed, dict) else json.dumps(changed))
    held(use_bundle, folder)


@fuzz(40)
@given(data=st.data())
def test_any_bytes_of_a_manifest_are_one_line(data: Any, tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    path.write_bytes(data.draw(broken(path.read_bytes())))
    held(use_bundle, folder)
