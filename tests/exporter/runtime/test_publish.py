"""A folder put in place of another in one step: old or new even under kill -9, and what killed runs leave is swept."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime import marked, publish
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.bundles.place import publish_bundle
from vitrim.exporter.runtime.bundles.verify import verify_bundle


def make(folder: Path, text: str = "one") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text * 1000)
    (folder / "budget.json").write_text(text)
    write_manifest(folder, {"vitrim": "0"}, ["vitrim", "export"], target="ort-cpu")
    return folder


def test_publishing_replaces_in_one_step(tmp_path: Path) -> None:
    final = tmp_path / "out"
    publish_bundle(make(publish.staging_folder(final)), final)
    assert (final / "budget.json").read_text() == "one"
    publish_bundle(make(publish.staging_folder(final), "two"), final)
    assert (final / "budget.json").read_text() == "two"
    verify_bundle(final)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def left_by_the_dead(final: Path, process: object = 1) -> Path:
    """What holds the staging folder of a run that was killed."""
    holder = final.parent / f".{final.name}.{process}.abcdefgh.staging"
    holder.mkdir()
    marked.write_marker(holder)
    return holder


def test_publishing_without_exchange_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = make(tmp_path / "out")
    monkeypatch.setattr(publish, "_exchange", lambda one, other: False)
    publish_bundle(make(publish.staging_folder(final), "two"), final)
    assert (final / "budget.json").read_text() == "two"
    final.rename(left_by_the_dead(final) / "old")  # as if killed between the two renames
    publish.sweep(final)
    verify_bundle(final)


def test_only_dead_processes_are_swept(tmp_path: Path) -> None:
    final = tmp_path / "out [1]"  # brackets mean something to glob
    mine = publish.staging_folder(final)
    code = f"""
from pathlib import Path
from vitrim.exporter.runtime import publish
print(publish.staging_folder(Path({str(final)!r})), flush=True)
input()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    # A dead run of a container, whose process id somebody else has here: this very process.
    dead = left_by_the_dead(final, os.getpid())
    (dead / "new").mkdir()
    users = tmp_path / f".{final.name}.my.own.staging"
    users.mkdir()
    publish.sweep(final)
    assert (mine.is_dir(), theirs.is_dir(), dead.exists(), users.is_dir()) == (True, True, False, True)
    other.kill()
    other.communicate()
    publish.sweep(final)
    assert (mine.is_dir(), theirs.exists()) == (True, False)


DEATH = "os.kill(os.getpid(), signal.SIGKILL)"
POINTS = {
    "before the manifest is written": ("write_manifest = lambda *a, **k: DEATH", "old"),
    "before the files are on disk": ("publish._sync = lambda folder: DEATH", "old"),
    "before the names are exchanged": ("publish._exchange = lambda one, other: DEATH", "old"),
    "after the names are exchanged": (
        "real = publish._exchange; publish._exchange = lambda *a: (real(*a), DEATH)",
        "new",
    ),
    "while the old bundle is removed": ("publish.shutil.rmtree = half", "new"),
    "no exchange, before the first rename": (
        "publish._exchange = lambda *a: False; Path.rename = lambda s, t: DEATH",
        "old",
    ),
    "no exchange, between the two renames": (
        "publish._exchange = lambda *a: False; real = Path.rename; "
        "Path.rename = lambda s, t: DEATH if s.name == 'new' else real(s, t)",
        "old",
    ),
    "no exchange, while the old bundle is removed": (
        "publish._exchange = lambda *a: False; publish.shutil.rmtree = half",
        "new",
    ),
}


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_at_a_named_point(tmp_path: Path, point: str) -> None:
    final = make(tmp_path / "out", "old")
    patch, expected = POINTS[point]
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from vitrim.exporter.runtime import publish
        from vitrim.exporter.runtime.bundles.manifest import write_manifest
        from vitrim.exporter.runtime.bundles.place import publish_bundle
        from vitrim.exporter.runtime.bundles.verify import verify_bundle
        def half(folder, **options):
            if Path(folder).is_dir():
                sorted(Path(folder).iterdir())[0].unlink()
                {DEATH}
        final = Path({str(final)!r})
        staging = publish.staging_folder(final)
        (staging / "model.onnx").write_text("new" * 1000)
        (staging / "budget.json").write_text("new")
        {patch.replace("DEATH", DEATH)}
        write_manifest(staging, {{}}, [])
        publish_bundle(staging, final)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if final.exists():  # without an exchange there is a moment without a bundle, but never with half a one
        verify_bundle(final)
    publish.sweep(final)
    verify_bundle(final)
    assert (final / "budget.json").read_text() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_kill_9_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    final = make(tmp_path / "out", "old")
    code = textwrap.dedent(f"""
        import itertools, pathlib, sys
        from vitrim.exporter.runtime import publish
        from vitrim.exporter.runtime.bundles.manifest import write_manifest
        from vitrim.exporter.runtime.bundles.place import publish_bundle
        from vitrim.exporter.runtime.bundles.verify import verify_bundle
        final = pathlib.Path({str(final)!r})
        print("go", flush=True)
        for number in itertools.count():
            staging = publish.staging_folder(final)
            text = f"new {{number}} "
            (staging / "model.onnx").write_text(text * 1000)
            (staging / "budget.json").write_text(text)
            write_manifest(staging, {{}}, [])
            publish_bundle(staging, final)
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
        verify_bundle(final)  # whole: every hash of one manifest fits
        changed += (final / "budget.json").read_text() != before
        publish.sweep(final)
    assert changed > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def filled(final: Path, text: str) -> Path:
    """A staging folder with one file."""
    staging = publish.staging_folder(final)
    (staging / "a").write_text(text)
    return staging


def test_a_staging_folder_lies_hidden_beside_its_place_and_each_is_another(tmp_path: Path) -> None:
    final = tmp_path / "made" / "on" / "the way"
    one, other = publish.staging_folder(final), publish.staging_folder(final)
    assert one != other
    for folder in (one, other):
        holder = folder.parent
        assert holder.parent == final.parent
        assert holder.name.startswith(f".the way.{os.getpid()}.")
        assert holder.name.endswith(".staging")
        assert marked.is_marked(holder)
        assert list(folder.iterdir()) == []
    assert not final.exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLackError, match="file"):
        publish.staging_folder(tmp_path / "file" / "out")


@pytest.mark.parametrize("exchanged", [True, False])
def test_nothing_of_the_old_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool) -> None:
    if not exchanged:
        monkeypatch.setattr(publish, "_exchange", lambda one, other: False)
    final = tmp_path / "out"
    final.mkdir()
    (final / "old").write_text("old")
    staging = filled(final, "new")
    (staging / "deep").mkdir()
    (staging / "deep" / "b").write_text("b")
    publish.replace_folder(staging, final)
    assert sorted(path.relative_to(final).as_posix() for path in final.rglob("*")) == ["a", "deep", "deep/b"]
    assert (final / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert staging.parent not in publish._locks


def test_a_published_folder_has_the_rights_of_any_new_one(tmp_path: Path) -> None:
    """mkdtemp makes folders that nobody else may read."""
    before = os.umask(0o027)
    try:
        publish.replace_folder(filled(tmp_path / "out", "x"), tmp_path / "out")
        assert os.umask(0o027) == 0o027  # as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_a_file_system_that_refuses_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "out"
    publish.replace_folder(filled(final, "old"), final)

    def full(one: Path, other: Path) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(other))

    monkeypatch.setattr(publish, "_exchange", full)
    with pytest.raises(EnvironmentLackError) as caught:
        publish.replace_folder(filled(final, "new"), final)
    assert "\n" not in str(caught.value)
    assert str(final) in str(caught.value)
    assert (final / "a").read_text() == "old"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are exchanged on Linux alone")
def test_an_exchange_swaps_names_or_says_that_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    swapped = publish._exchange(one, other)
    assert (one / "name").read_text() == ("other" if swapped else "one")
    if swapped:  # an error that is not "cannot" is one
        with pytest.raises(FileNotFoundError):
            publish._exchange(tmp_path / "none", other)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert publish._exchange(one, other) is False


def test_what_a_run_without_exchange_left_is_brought_back_or_removed(tmp_path: Path) -> None:
    final = tmp_path / "out"
    for name in ("a", "b"):  # killed between the two renames, and after both
        old = left_by_the_dead(final) / "old"
        old.mkdir()
        (old / "a").write_text(name)
        publish.sweep(final)
        assert ((final / "a").read_text(), old.parent.exists()) == ("a", False)


def test_a_stranger_s_folders_beside_an_output_are_left_alone(tmp_path: Path) -> None:
    final = make(tmp_path / "out")
    for name in (".out.retired", ".out.1.a.staging", ".out.1.abcdefgh.staging", ".out.cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("precious")
    (tmp_path / ".out.2.b.staging").mkdir()  # empty, and still a user's
    (tmp_path / ".out.3.abcdefgh.staging").symlink_to(left_by_the_dead(tmp_path / "other"))
    in_ours = left_by_the_dead(final, 4)
    (in_ours / "new").mkdir()
    (in_ours / "notes").write_text("a user's, put into what vitrim left")
    linked = left_by_the_dead(final, 5)
    (linked / "new").symlink_to(tmp_path / ".out.retired")
    (linked / "old").symlink_to(tmp_path / ".out.retired")
    before = sorted(path for path in tmp_path.rglob("*") if path != in_ours / "new")
    publish.sweep(final)
    publish_bundle(make(publish.staging_folder(final), "two"), final)
    publish.sweep(final)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / ".out.retired" / "precious").read_text() == "precious"


def test_a_run_that_died_before_it_marked_its_folder_leaves_nothing(tmp_path: Path) -> None:
    final = make(tmp_path / "out")
    for name, opened in (("abcdefgh", False), ("hgfedcba", True)):
        holder = tmp_path / f".out.2.{name}.staging"
        holder.mkdir()
        if opened:
            (holder / marked.MARKER).touch()  # opened, and not yet written
    publish.sweep(final)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_folder_that_cannot_come_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a system without exchange: a second rename that fails must not cost the old bundle."""
    monkeypatch.setattr(publish, "_exchange", lambda one, other: False)
    final = make(tmp_path / "out", "old")
    staging, real = make(publish.staging_folder(final), "new"), Path.rename

    def fails(source: Path, target: Path) -> Path:
        if source.name in ("new", "old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(EnvironmentLackError, match="input/output error"):
            publish_bundle(staging, final)
        publish.discard(staging, final)
        assert not final.exists()
    publish.sweep(final)
    verify_bundle(final)
    assert (final / "budget.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_user_puts_there_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = make(tmp_path / "out", "old")
    staging = make(publish.staging_folder(final), "new")
    monkeypatch.setattr(publish, "_sync", lambda folder: (final / "notes").write_text("mine"))
    with pytest.raises(InputError, match="notes in it is not vitrim's"):
        publish_bundle(staging, final)
    publish.discard(staging, final)
    assert ((final / "notes").read_text(), (final / "budget.json").read_text()) == ("mine", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_locks_the_process_id_tells_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    final = tmp_path / "out"
    mine = publish.staging_folder(final)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead = left_by_the_dead(final, ended.pid)
    publish.sweep(final)
    assert (mine.is_dir(), dead.exists()) == (True, False)
