"""Finished stages of one output, kept beside it so that what has not changed is not done again.

A cache is a folder `.<output>.cache`; $VITRIM_STAGES may name one more, which all outputs share. It holds a marker file
and folders `<stage>-<key>`, one for each stage. A folder appears by a rename when it is whole, so a killed run leaves
nothing that looks finished. A folder without the marker is somebody else's and is left alone, and in a cache only names
that vitrim writes are ever removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...exporter.core.errors import InputError
from ...exporter.core.files import explain_os_error, link

if TYPE_CHECKING:
    from .stage import Stage

MARKER = ".vitrim-cache.json"
SHARED = "VITRIM_STAGES"
_FORMAT = "vitrim-cache/1"
_FINISHED = re.compile(r"[a-z]+-[0-9a-f]{16}")
_UNFINISHED = re.compile(r"\.[a-z]+\.[A-Za-z0-9_]{8}\.making")
_KEPT = re.compile(r"finetune-[0-9a-f]{16}\.pt")  # what fine-tuning has done so far


def cache_of(output: Path) -> StageCache:
    """The cache of an output.

    Raises:
        InputError: what lies there, or in the folder that $VITRIM_STAGES names, is no cache of vitrim's.
    """
    shared = os.environ.get(SHARED)
    return StageCache(output.parent / f".{output.name}.cache", StageCache(Path(shared)) if shared else None)


class StageCache:
    """The finished stages of one output.

    Args:
        root: the cache folder; made with its marker when the first stage is.
        shared: a cache of all outputs, where stages are looked for and left too.

    Raises:
        InputError: `root` is a link, a file, or a folder that is no cache of vitrim's.
    """

    def __init__(self, root: Path, shared: StageCache | None = None) -> None:
        self.root, self.shared = root, shared
        refuse_foreign_cache(root)

    def find(self, stage: type[Stage], key: str) -> Path | None:
        """The folder of a finished stage; None where it has not been made."""
        folder = self.root / f"{stage.name}-{key}"
        if folder.is_dir() and not folder.is_symlink():
            return folder
        known = None if self.shared is None or stage.timed else self.shared.find(stage, key)
        return None if known is None else self.make(stage, key, lambda fresh: link_tree(known, fresh), share=False)

    def make(self, stage: type[Stage], key: str, fill: Callable[[Path], None], *, share: bool = True) -> Path:
        """Fill a stage's folder by `fill(folder)`; the stage's former folder goes.

        Raises:
            EnvironmentLackError: the cache cannot be written.
        """
        final = self._make(stage.name, key, fill)
        for old in self.root.glob(f"{stage.name}-*"):
            if old != final and _FINISHED.fullmatch(old.name):
                _remove(old)
        if share and self.shared is not None and not stage.timed:
            self.shared._make(stage.name, key, lambda fresh: link_tree(final, fresh))
        return final

    def _make(self, name: str, key: str, fill: Callable[[Path], None]) -> Path:
        final = self.root / f"{name}-{key}"
        try:
            self._open()
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".making", dir=self.root))
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        try:
            fill(temporary)
            if not final.is_dir():  # of a shared cache, another process may have been first
                os.replace(temporary, final)
        except OSError as error:
            if not final.is_dir():
                raise explain_os_error(error, final) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            self._drop_if_empty()
        return final

    def sweep(self) -> None:
        """Remove what killed runs left half-made."""
        for path in _own(self.root):
            if _UNFINISHED.fullmatch(path.name):
                _remove(path)

    def clear(self) -> int:
        """Remove the whole cache.

        Returns:
            bytes freed.
        """
        freed = 0
        for path in _own(self.root):
            freed += size_of(path)
            _remove(path)
        self._drop_if_empty()
        return freed

    @contextlib.contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Hold the cache for this process; a second run of the same output waits, and says so.

        Raises:
            EnvironmentLackError: the cache cannot be written.
        """
        while True:
            try:
                self._open()
                handle = os.open(self.root / MARKER, os.O_RDWR)
            except OSError as error:
                raise explain_os_error(error, self.root) from error
            try:
                _lock(handle, self.root, note)
                if not _is_at(handle, self.root / MARKER):
                    continue  # whoever held it has taken the cache away meanwhile
                yield
                return
            finally:
                os.close(handle)
                self._drop_if_empty()

    def _open(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        marker = self.root / MARKER
        if not marker.exists():
            marker.write_text(json.dumps({"format": _FORMAT}) + "\n")

    def _drop_if_empty(self) -> None:
        """A first stage that failed leaves nothing behind, and a cache with a stranger's file in it stays."""
        if self.root.is_dir() and [path.name for path in self.root.iterdir()] == [MARKER]:
            (self.root / MARKER).unlink()
            self.root.rmdir()


def link_tree(source: Path, target: Path) -> None:
    """The files of a folder in another one, without a copy where the file system can."""
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        link(file, place)


def refuse_foreign_cache(root: Path) -> None:
    """Refuse a cache folder that vitrim did not make.

    Raises:
        InputError: it is a link, a file, or holds something without the marker.
    """
    if not root.is_symlink() and not root.exists():
        return
    way_out = "move it away, or choose another output"
    if root.is_symlink() or not root.is_dir():
        raise InputError(f"{root} should be a cache folder of vitrim's, but is a link or a file; {way_out}")
    if not is_cache(root) and any(root.iterdir()):
        raise InputError(f"{root} is no cache of vitrim's (it has no {MARKER}), so nothing is written to it; {way_out}")


def is_cache(root: Path) -> bool:
    """Whether a folder is a cache that vitrim made."""
    marker = root / MARKER
    if root.is_symlink() or marker.is_symlink() or not marker.is_file() or marker.stat().st_size > 1 << 12:
        return False
    try:
        data = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == _FORMAT


def caches_in(folder: Path) -> list[Path]:
    """The caches beside the outputs in a folder."""
    return sorted(path for path in folder.glob(".*.cache") if is_cache(path))


def clean(outputs: Iterable[str | os.PathLike[str]] = ()) -> dict[str, int]:
    """See `vitrim.api.clean`."""
    roots = [cache_of(Path(os.path.abspath(output))).root for output in outputs]
    if not roots:
        shared = os.environ.get(SHARED)
        roots = [*caches_in(Path.cwd()), *([Path(shared)] if shared and is_cache(Path(shared)) else [])]
    return {str(root): StageCache(root).clear() for root in roots if root.exists()}


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder; hard links count once."""
    seen: dict[tuple[int, int], int] = {}
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        status = file.lstat()
        if not file.is_dir():
            seen[(status.st_dev, status.st_ino)] = status.st_size
    return sum(seen.values())


def _own(root: Path) -> list[Path]:
    """What vitrim wrote into a cache, by name; the marker is not among it."""
    if not is_cache(root):
        return []
    patterns = (_FINISHED, _UNFINISHED, _KEPT)
    return [path for path in root.iterdir() if any(pattern.fullmatch(path.name) for pattern in patterns)]


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _lock(handle: int, root: Path, note: Callable[[str], None]) -> None:
    """Take the lock of a cache; where a file system has none, runs of one output are not kept apart."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 1 << 12, 0).decode(errors="replace")
        try:
            process = f"process {json.loads(holder)['process']}"
        except (ValueError, KeyError, TypeError):
            process = "another process"
        note(f"{process} is at work on the same output ({root}); waiting for it")
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return
    text = json.dumps({"format": _FORMAT, "process": os.getpid()}) + "\n"
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
