"""Caches of stages: only ever one's own, whole or absent, one run at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.marked import MARKER, is_marked, write_marker
from vitrim.recipes.pipeline.cache import StageCache, cache_of, caches_in, clean, size_of
from vitrim.recipes.stages.stage import Stage

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


class Thing(Stage):
    name: ClassVar[str] = "thing"


class Timed(Stage):
    name: ClassVar[str] = "clock"
    timed: ClassVar[bool] = True


def fill(folder: Path) -> None:
    (folder / "result").write_text("done")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "more").write_text("more")


def test_a_stage_is_found_again_and_its_former_result_goes(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")
    assert cache.find(Thing, KEY) is None
    folder = cache.make(Thing, KEY, fill)
    assert (folder / "result").read_text() == "done"
    assert cache.find(Thing, KEY) == folder
    assert is_marked(cache.root)
    newer = cache.make(Thing, OTHER, fill)
    assert not folder.exists()
    assert sorted(path.name for path in cache.root.iterdir()) == [MARKER, newer.name]


def test_of_many_results_only_those_that_are_named_stay(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache", keeps=True)
    old, new, timed = cache.make(Thing, KEY, fill), cache.make(Thing, OTHER, fill), cache.make(Timed, KEY, fill)
    (cache.root / "notes").mkdir()  # a stranger's
    cache.keep_only({new.name}, {"clock"})
    assert sorted(path.name for path in cache.root.iterdir()) == sorted([MARKER, "notes", new.name, timed.name])
    assert not old.exists()
    cache.keep_only((), ())
    assert sorted(path.name for path in cache.root.iterdir()) == [MARKER, "notes"]


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")

    def fails(folder: Path) -> None:
        fill(folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.make(Thing, KEY, fails)
    assert not cache.root.exists()


def home(tmp_path: Path) -> Path:
    """A folder of a person, with hidden folders and names that look like a cache's."""
    folder = tmp_path / "home"
    for name in (".ssh", ".out.1.a.staging", f"thing-{KEY}", ".thing.abcdefgh.making"):
        (folder / name).mkdir(parents=True)
        (folder / name / "precious").write_text("precious")
    return folder


def test_what_is_not_a_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = home(tmp_path)
    before = sorted(folder.rglob("*"))
    (tmp_path / ".b.cache").symlink_to(folder)
    (tmp_path / ".c.cache").write_text("a file")
    (tmp_path / ".d.cache").symlink_to(tmp_path / "nowhere")
    for root, said in (
        (tmp_path / ".b.cache", "is a link or a file"),
        (tmp_path / ".c.cache", "is a link or a file"),
        (tmp_path / ".d.cache", "is a link or a file"),
        (folder, f"has no {MARKER}"),
    ):
        with pytest.raises(InputError, match=said):
            StageCache(root)
    assert sorted(folder.rglob("*")) == before
    assert not is_marked(tmp_path / ".b.cache")
    assert caches_in(tmp_path) == []


@pytest.mark.parametrize("marker", ["", "{}", "[1]", '{"format": "other/1"}', "x" * 10000])
def test_a_marker_of_something_else_makes_no_cache(tmp_path: Path, marker: str) -> None:
    folder = home(tmp_path)
    (folder / MARKER).write_text(marker)
    with pytest.raises(InputError, match="is no cache of vitrim's"):
        StageCache(folder)


def test_only_names_that_vitrim_writes_are_removed(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")
    cache.make(Thing, KEY, fill)
    strangers = ["notes.txt", ".ssh", "thing-short", f"Thing-{KEY}", f"{KEY}", "finetune-x.pt"]
    for name in strangers:
        (cache.root / name).mkdir()
        (cache.root / name / "mine").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (cache.root / f"linked-{KEY}").symlink_to(outside)
    write_marker(outside)
    (cache.root / f"finetune-{OTHER}.pt").symlink_to(outside / "mine")
    users = [f"photos-{OTHER}", ".thing.zyxwvuts.making"]  # names that vitrim writes, in a marker forged around them
    for name in users:
        (cache.root / name).mkdir()
        (cache.root / name / "mine").write_text("mine")
    half = cache.root / ".thing.abcdefgh.making"
    half.mkdir()
    write_marker(half)
    (cache.root / f"finetune-{KEY}.pt").write_text("weights")
    torn = cache.root / f".finetune-{KEY}.pt.a_b3c4d5.tmp"
    torn.write_text("wei")
    cache.sweep()
    assert (half.exists(), torn.exists()) == (False, False)
    assert cache.clear() == len("donemoreweights")
    left = [MARKER, f"linked-{KEY}", f"finetune-{OTHER}.pt", *strangers, *users]
    assert sorted(path.name for path in cache.root.iterdir()) == sorted(left)
    for name in (*strangers, *users):
        assert (cache.root / name / "mine").read_text() == "mine"
    assert (outside / "mine").read_text() == "mine"


def test_a_link_in_a_stage_s_place_is_neither_taken_nor_replaced(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")
    cache.make(Timed, KEY, fill)
    elsewhere = home(tmp_path)
    write_marker(elsewhere)
    (cache.root / f"thing-{KEY}").symlink_to(elsewhere)
    assert cache.find(Thing, KEY) is None
    with pytest.raises(EnvironmentLackError, match=f"cannot write .*thing-{KEY}: a part of the path is a file"):
        cache.make(Thing, KEY, fill)
    assert (elsewhere / ".ssh" / "precious").read_text() == "precious"
    assert not (elsewhere / "result").exists()


def test_a_user_s_empty_folder_is_used_and_stays(tmp_path: Path) -> None:
    root = tmp_path / "stages"
    root.mkdir()
    cache = StageCache(root)
    cache.make(Thing, KEY, fill)
    assert cache.clear() == 8
    assert list(root.iterdir()) == []


def test_a_bundle_takes_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_manifest(folder, {}, [])
    with pytest.raises(InputError, match="lies in the bundle"):
        cache_of(folder / "b.json")
    monkeypatch.setenv("VITRIM_STAGES", str(folder / "stages"))
    with pytest.raises(InputError, match="lies in the bundle"):
        cache_of(tmp_path / "b.json")


def test_a_cache_that_is_its_own_shared_one_does_not_wait_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("VITRIM_STAGES", str(tmp_path / "link" / ".out.cache"))
    with cache_of(tmp_path / "out").locked(lambda text: None):
        pass


def test_cleaning_leaves_alone_what_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it or nothing: stages that vanish fail a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITRIM_STAGES", str(tmp_path / "shared"))
    free, busy = cache_of(tmp_path / "free"), cache_of(tmp_path / "busy")
    free.make(Thing, KEY, fill)
    with busy.locked(lambda text: None):
        made = busy.make(Thing, OTHER, fill)
        for outputs in (["busy"], ["free", "busy"], []):
            with pytest.raises(EnvironmentLackError, match=f"process {os.getpid()} is at work in .*\\.busy\\.cache"):
                clean(outputs)
        assert (made.is_dir(), len(list((tmp_path / "shared").iterdir()))) == (True, 3)
    assert clean() == {str(tmp_path / ".busy.cache"): 8, str(tmp_path / ".free.cache"): 8, str(tmp_path / "shared"): 16}
    assert list(tmp_path.iterdir()) == []


def test_a_cleared_cache_is_gone_and_its_size_told(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")
    folder = cache.make(Thing, KEY, fill)
    os.link(folder / "result", folder / "again")  # the same bytes
    assert size_of(cache.root) == 8
    assert caches_in(tmp_path) == [cache.root]
    assert cache.clear() == 8
    assert not cache.root.exists()


def test_outputs_share_what_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRIM_STAGES", str(tmp_path / "shared"))
    one, two = cache_of(tmp_path / "one"), cache_of(tmp_path / "two")
    made = one.make(Thing, KEY, fill)
    one.make(Timed, KEY, fill)
    found = two.find(Thing, KEY)
    assert found == two.root / f"thing-{KEY}"
    assert (found / "deeper" / "more").read_text() == "more"
    assert (found / "result").samefile(made / "result")  # no copy
    assert two.find(Timed, KEY) is None
    monkeypatch.setenv("VITRIM_STAGES", str(home(tmp_path)))
    with pytest.raises(InputError, match="is no cache of vitrim's"):
        cache_of(tmp_path / "three")


def test_a_lock_says_who_holds_it_and_is_given_back(tmp_path: Path) -> None:
    cache, notes = StageCache(tmp_path / ".out.cache"), list[str]()
    with cache.locked(notes.append):
        held = json.loads((cache.root / MARKER).read_text())
        assert held["process"] == os.getpid()
    assert notes == []
    assert not cache.root.exists()  # nothing was made
    with pytest.raises(RuntimeError, match="mine"), cache.locked(notes.append):
        raise RuntimeError("mine")
    with cache.locked(notes.append):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentLackError, match="permission denied"):
        StageCache(tmp_path / ".out.cache").make(Thing, KEY, fill)


def test_a_file_in_the_way_of_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLackError, match=r"cannot write .*file"):
        StageCache(tmp_path / "file" / ".out.cache").make(Thing, KEY, fill)


def test_the_journal_of_a_search_outlives_a_run_that_failed(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / ".out.cache")
    cache.make(Thing, KEY, lambda folder: None)
    journal = cache.root / f"search-{KEY}.journal"
    for path in (journal, journal.with_name(f"{journal.name}.lock"), cache.root / f"finetune-{KEY}.pt"):
        path.write_text("x")
    cache.clear(but_unfinished=True)
    assert len(list(cache.root.iterdir())) == 4  # the marker too
    cache.clear()
    assert not cache.root.exists()
