"""Bundles: every byte is checked, and publishing leaves the old folder or the new one, even under kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from vitrim.exporter.errors import InputError
from vitrim.exporter.runtime import bundle


def make(folder: Path, text: str = "one") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text * 1000)
    (folder / "budget.json").write_text(text)
    bundle.write_manifest(folder, {"vitrim": "0"}, ["vitrim", "export"], target="ort-cpu")
    return folder


def test_a_whole_bundle_verifies(tmp_path: Path) -> None:
    manifest = bundle.verify(make(tmp_path / "b"))
    assert manifest["target"] == "ort-cpu"
    assert set(manifest["files"]) == {"model.onnx", "budget.json"}
    assert manifest["files"]["budget.json"]["bytes"] == 3


def test_one_changed_byte_in_any_file_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            if path.name != bundle.MANIFEST:
                with pytest.raises(InputError, match=rf"{path.name} is not the file that was published"):
                    bundle.verify(folder)
        path.write_bytes(whole)
    bundle.verify(folder)


def test_a_damaged_manifest_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / bundle.MANIFEST
    data = json.loads(path.read_text())
    digest = data["files"]["model.onnx"]["sha256"]
    path.write_text(path.read_text().replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1")))
    with pytest.raises(InputError, match="its hash differs"):
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


def test_paths_out_of_the_bundle_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    path = folder / bundle.MANIFEST
    data = json.loads(path.read_text())
    data["files"]["../secret"] = {"sha256": "0", "bytes": 1}
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="outside the bundle"):
        bundle.verify(folder)


def test_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no bundle"):
        bundle.verify(tmp_path / "none")
    with pytest.raises(InputError, match=r"is not a bundle: it has no manifest\.json"):
        bundle.verify(tmp_path)


def test_golden_never_unpickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        bundle.load_golden(tmp_path)
    np.savez(tmp_path / "golden.npz", image=np.zeros(3))
    assert bundle.load_golden(tmp_path)["image"].shape == (3,)
    (tmp_path / "golden.npz").write_bytes((tmp_path / "golden.npz").read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        bundle.load_golden(tmp_path)


def test_publishing_replaces_in_one_step(tmp_path: Path) -> None:
    final = tmp_path / "out"
    bundle.publish(make(bundle.staging_folder(final)), final)
    assert (final / "budget.json").read_text() == "one"
    bundle.publish(make(bundle.staging_folder(final), "two"), final)
    assert (final / "budget.json").read_text() == "two"
    bundle.verify(final)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_publishing_without_exchange_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = make(tmp_path / "out")
    monkeypatch.setattr(bundle, "_exchange", lambda one, other: False)
    bundle.publish(make(bundle.staging_folder(final), "two"), final)
    assert (final / "budget.json").read_text() == "two"
    final.rename(tmp_path / ".out.retired")  # as if killed between the two renames
    bundle.sweep(final)
    bundle.verify(final)


def test_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"is not a vitrim bundle \(it holds thesis\.tex\)"):
        bundle.publish(make(bundle.staging_folder(tmp_path / "docs")), tmp_path / "docs")
    assert (tmp_path / "docs" / "thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file or a link"):
        bundle.refuse_foreign(tmp_path / "file")


def test_only_dead_processes_are_swept(tmp_path: Path) -> None:
    final = tmp_path / "out"
    mine = bundle.staging_folder(final)
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead = tmp_path / f".out.{done.stdout.strip()}.abc.staging"
    dead.mkdir()
    bundle.sweep(final)
    assert mine.is_dir()
    assert not dead.exists()


def test_kill_9_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    final = make(tmp_path / "out", "old")
    code = textwrap.dedent(f"""
        import itertools, pathlib, sys
        from vitrim.exporter.runtime import bundle
        final = pathlib.Path({str(final)!r})
        print("go", flush=True)
        for number in itertools.count():
            staging = bundle.staging_folder(final)
            text = f"new {{number}} "
            (staging / "model.onnx").write_text(text * 1000)
            (staging / "budget.json").write_text(text)
            bundle.write_manifest(staging, {{}}, [])
            bundle.publish(staging, final)
    """)
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(12):
        before = (final / "budget.json").read_text()
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.03)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        bundle.verify(final)  # whole: every hash of one manifest fits
        changed += (final / "budget.json").read_text() != before
        bundle.sweep(final)
    assert changed > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
