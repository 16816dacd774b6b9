"""Finished stages of one output, kept beside it so that what has not changed is not done again.

A cache is a folder `.<output>.cache`; $VITRIM_STAGES may name one more, which all outputs share. It holds a marker file
and folders `<stage>-<key>`, one for each stage. A folder appears by a rename when it is whole, so a killed run leaves
nothing that looks finished. A folder without the marker is somebody else's and is left alone, and in a cache only names
that vitrim writes, and folders with its marker in them, are ever removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core.files import explain_os_error, link
from ...exporter.runtime.bundles.place import refuse_in_bundle
from ...exporter.runtime.marked import (
    MARKER,
    cache_folder,
    drop_if_empty,
    is_marked,
    locked,
    make_marked,
    refuse_unmarked,
    write_marker,
)

if TYPE_CHECKING:
    from ..stages.stage import Stage

SHARED = "VITRIM_STAGES"
_FOLDER = re.compile(r"[a-z]+-[0-9a-f]{16}|\.[a-z]+\.[A-Za-z0-9_]{8}\.making")
_KEPT = re.compile(r"finetune-[0-9a-f]{16}\.pt|\.finetune-[0-9a-f]{16}\.pt\.[a-z0-9_]{8}\.tmp")  # of fine-tuning
_STUDY = re.compile(r"search-[0-9a-f]{16}\.journal(\.lock[0-9a-f-]*(\.rename)?)?")  # of a search


def cache_of(output: Path, keeps: bool = False) -> StageCache:
    """The cache of an output.

    Args:
        output: a bundle, or a file that a run writes.
        keeps: see `StageCache`.

    Raises:
        InputError: what lies there, or in the folder that $VITRIM_STAGES names, is no cache of vitrim's, or a bundle's.
    """
    root, shared = cache_folder(output), os.environ.get(SHARED)
    refuse_in_bundle(root)
    if not shared or os.path.realpath(shared) == os.path.realpath(root):
        return StageCache(root, keeps=keeps)
    refuse_in_bundle(shared)
    return StageCache(root, StageCache(Path(shared)), keeps)


class StageCache:
    """The finished stages of one output.

    Args:
        root: the cache folder; made with its marker when the first stage is.
        shared: a cache of all outputs, where stages are looked for and left too.
        keeps: whether former results of a stage stay when it is made anew.

    Raises:
        InputError: `root` is a link, a file, or a folder that is no cache of vitrim's.
    """

    def __init__(self, root: Path, shared: StageCache | None = None, keeps: bool = False) -> None:
        self.root, self.shared, self.keeps = root, shared, keeps
        refuse_unmarked(root)

    def find(self, stage: type[Stage], key: str) -> Path | None:
        """The folder of a finished stage; None where it has not been made."""
        folder = self.root / f"{stage.name}-{key}"
        if is_marked(folder):
            return folder
        known = None if self.shared is None or stage.timed else self.shared.find(stage, key)
        return None if known is None else self.make(stage, key, lambda fresh: link_tree(known, fresh), share=False)

    def make(self, stage: type[Stage], key: str, fill: Callable[[Path], None], *, share: bool = True) -> Path:
        """Fill a stage's folder by `fill(folder)`; the stage's former folder goes, unless it is kept.

        Raises:
            EnvironmentLackError: the cache cannot be written.
        """
        final = self._make(stage.name, key, fill)
        for old in self.root.glob(f"{stage.name}-*"):
            if not self.keeps and old != final and _FOLDER.fullmatch(old.name) and is_marked(old):
                _remove(old)
        if share and self.shared is not None and not stage.timed:
            self.shared._make(stage.name, key, lambda fresh: link_tree(final, fresh), drop=False)
        return final

    def _make(self, name: str, key: str, fill: Callable[[Path], None], *, drop: bool = True) -> Path:
        final = self.root / f"{name}-{key}"
        make_marked(self.root)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".making", dir=self.root))
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        try:
            write_marker(temporary)
            fill(temporary)
            if not is_marked(final):  # of a shared cache, another process may have been first
                os.replace(temporary, final)
        except OSError as error:
            if not is_marked(final):
                raise explain_os_error(error, final) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if drop:  # a first stage that failed leaves nothing behind
                drop_if_empty(self.root)
        return final

    def sweep(self) -> None:
        """Remove what killed runs left half-made."""
        for path in _own(self.root):
            if path.name.endswith((".making", ".tmp")):
                _remove(path)

    def keep_only(self, names: Collection[str], stages: Collection[str]) -> None:
        """Remove finished stages that nobody will ask for again.

        Args:
            names: of folders that stay.
            stages: names of stages of which all folders stay.
        """
        for path in _own(self.root):
            if path.is_dir() and path.name not in names and path.name.rpartition("-")[0] not in stages:
                _remove(path)

    def clear(self, but_unfinished: bool = False) -> int:
        """Remove the whole cache.

        Args:
            but_unfinished: leave what a stage goes on from that was stopped.

        Returns:
            bytes freed.
        """
        freed = 0
        for path in _own(self.root):
            if but_unfinished and _is_kept(path):
                continue
            freed += size_of(path)
            _remove(path)
        drop_if_empty(self.root)
        return freed

    @contextlib.contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Hold the cache for this process; a second run of the same output waits, and says so.

        Raises:
            InputError, EnvironmentLackError: see `vitrim.exporter.runtime.marked.locked`.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(locked(self.root, note))
            if self.shared is not None:
                held.enter_context(locked(self.shared.root, note, shared=True))
            yield


def link_tree(source: Path, target: Path) -> None:
    """The files of a folder in another one, without a copy where the file system can."""
    for file in sorted(source.rglob("*")):
        if file == source / MARKER:
            continue
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        link(file, place)


def caches_in(folder: Path) -> list[Path]:
    """The caches beside the outputs in a folder."""
    return sorted(path for path in folder.glob(".*.cache") if is_marked(path))


def clean(outputs: Iterable[str | os.PathLike[str]] = ()) -> dict[str, int]:
    """See `vitrim.api.clean`."""
    roots = [cache_folder(Path(os.path.abspath(output))) for output in outputs]
    if not roots:
        shared = os.environ.get(SHARED)
        roots = [*caches_in(Path.cwd()), *([Path(shared)] if shared and is_marked(Path(shared)) else [])]
    caches = {str(root): StageCache(root) for root in roots if os.path.lexists(root)}
    with contextlib.ExitStack() as held:  # all or none: a run whose stages vanish fails
        for cache in caches.values():
            held.enter_context(locked(cache.root, lambda text: None, wait=False))
        return {name: cache.clear() for name, cache in caches.items()}


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder but markers; hard links count once."""
    seen: dict[tuple[int, int], int] = {}
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        status = file.lstat()
        if not file.is_dir() and file.name != MARKER:
            seen[(status.st_dev, status.st_ino)] = status.st_size
    return sum(seen.values())


def _own(root: Path) -> list[Path]:
    """What vitrim wrote into a cache: folders by name and marker, files by name, and no links."""
    if not is_marked(root):
        return []
    return [path for path in root.iterdir() if _is_kept(path) or (_FOLDER.fullmatch(path.name) and is_marked(path))]


def _is_kept(path: Path) -> bool:
    return any(name.fullmatch(path.name) for name in (_KEPT, _STUDY)) and path.is_file() and not path.is_symlink()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
