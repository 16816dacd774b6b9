"""A bundle checked byte for byte."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_bundles import sealed_bundle

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bundles.manifest import (
    GraphPrecision,
    seal,
)
from vitrim.exporter.runtime.bundles.place import publish_bundle
from vitrim.exporter.runtime.bundles.verify import verify_bundle


def test_a_whole_bundle_verifies(tmp_path: Path) -> None:
    manifest = verify_bundle(sealed_bundle(tmp_path / "b"))
    assert manifest.target == "ort-cpu"
    assert manifest.resolved_target.name == "ort-cpu"
    assert manifest.precision == GraphPrecision("fp32", ())
    assert set(manifest.files) == {"model.onnx", "budget.json"}
    assert manifest.files["budget.json"].bytes == 3


def test_one_changed_byte_in_any_file_is_found(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(InputError, match=path.name):
                verify_bundle(folder)
        path.write_bytes(whole)
    verify_bundle(folder)


def test_missing_extra_and_linked_files_are_named(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (folder / "extra.bin").write_text("x")
    with pytest.raises(InputError, match=r"extra\.bin is not in the manifest"):
        verify_bundle(folder)
    (folder / "extra.bin").unlink()
    (folder / "budget.json").rename(tmp_path / "outside.json")
    with pytest.raises(InputError, match=r"budget\.json is missing"):
        verify_bundle(folder)
    (folder / "budget.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(InputError, match=r"budget\.json is a link"):
        verify_bundle(folder)
    (folder / "budget.json").unlink()
    os.mkfifo(folder / "budget.json")
    with pytest.raises(InputError, match=r"budget\.json is no regular file"):  # and does not wait for a writer
        verify_bundle(folder)
    (folder / "budget.json").unlink()
    (tmp_path / "outside.json").rename(folder / "budget.json")
    verify_bundle(folder, needs=("model.onnx",))
    with pytest.raises(InputError, match=r"has no golden\.npz"):
        verify_bundle(folder, needs=("model.onnx", "golden.npz"))
    (folder / layout.MANIFEST).rename(tmp_path / "m.json")
    (folder / layout.MANIFEST).symlink_to(tmp_path / "m.json")
    with pytest.raises(InputError, match="is a link"):
        verify_bundle(folder)


def test_paths_out_of_the_bundle_are_refused(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    path = folder / layout.MANIFEST
    data = json.loads(path.read_text())
    for name, why in (("../secret", "outside"), ("/etc/passwd", "outside"), ("a\0b", "missing"), ("", "missing")):
        path.write_text(seal({**data, "files": {name: {"sha256": "0", "bytes": 1}}}))
        with pytest.raises(InputError, match=why):
            verify_bundle(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_cannot_be_looked_into_is_no_whole_bundle(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (folder / "more").mkdir()
    (folder / "more" / "extra.so").write_text("x")
    (folder / "more").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot read .*more: permission denied"):
            verify_bundle(folder)
    finally:
        (folder / "more").chmod(0o700)


def test_what_the_system_does_not_let_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (folder / "more").mkdir()
    scan = os.scandir

    def forbidden(path: Any = ".") -> Any:
        if os.fspath(path).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)  # what permissions do to everybody but root
    for look in (verify_bundle, lambda root: publish_bundle(root, root)):
        with pytest.raises(InputError, match=r"cannot read .*more: permission denied"):
            look(folder)


def test_a_link_to_a_folder_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    folder = sealed_bundle(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="more is not in the manifest"):
        verify_bundle(folder)
