"""A folder beside an output that is surely vitrim's: known by a marker, and held by one process at a time. Torch-free.

Such a folder appears with its marker in one step, and goes in one step while it is held, so nobody ever sees half of
either. A folder of that name without the marker is somebody else's and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core.errors import EnvironmentLackError, InputError
from ..core.files import explain_os_error, ordinary_mode

MARKER = ".vitrim-cache.json"
_FORMAT = "vitrim-cache/1"
_HEAD = json.dumps({"format": _FORMAT})[:-1].encode()  # begins every marker, also one that is just being written
_LARGEST, _WIDTH = 1 << 12, 512  # bytes: of a marker, and of what is written over it at once
_ATTEMPTS = 100  # at what only other processes' haste can spoil


def cache_folder(output: Path) -> Path:
    """Where an output's cache and lock lie."""
    return output.parent / f".{output.name}.cache"


def is_marked(folder: Path) -> bool:
    """Whether a folder is one that vitrim made; a link to one is not."""
    marker = folder / MARKER
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
        found = marker.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return False
        with open(marker, "rb") as stream:
            return stream.read(len(_HEAD)) == _HEAD
    except (OSError, ValueError):
        return False


def refuse_unmarked(root: Path) -> None:
    """Refuse a place that something else than a folder of vitrim's has; an empty folder may be taken.

    Raises:
        InputError: it is a link, a file, or holds something without the marker.
        EnvironmentLackError: it cannot be looked at.
    """
    way_out = "move it away, or choose another output"
    try:
        if not stat.S_ISDIR(root.lstat().st_mode):
            raise InputError(f"{root} should be a cache folder of vitrim's, but is a link or a file; {way_out}")
        if _is_foreign(root):
            raise InputError(
                f"{root} is no cache of vitrim's (it has no {MARKER}), so nothing is written to it; {way_out}"
            )
    except FileNotFoundError:  # nothing is there, or its owner has just taken it away
        return
    except OSError as error:
        raise explain_os_error(error, root) from error


def _is_foreign(root: Path) -> bool:
    """Whether a folder holds something, and no marker; a look that its owner spoils by taking it away is repeated."""
    for _ in range(_ATTEMPTS):
        names = {path.name for path in root.iterdir()}
        if not names or is_marked(root):
            return False
        if MARKER not in names:
            return True
    return True


def _is_empty(root: Path) -> bool:
    """Whether an empty folder is there: a user's, since vitrim's are never empty in their place."""
    try:
        before = root.stat()
        return not any(root.iterdir()) and os.path.samestat(before, root.stat())
    except OSError:
        return False


def write_marker(folder: Path, *, kept: bool = False) -> None:
    """Mark a new folder as vitrim's.

    Args:
        folder: that nobody else knows yet.
        kept: a user made it, so it stays, empty, when it is no longer needed.
    """
    (folder / MARKER).write_bytes(_marker({"kept": True} if kept else {}))


def make_marked(root: Path) -> None:
    """Make a folder with its marker, where it is not there yet.

    Raises:
        InputError: see `refuse_unmarked`.
        EnvironmentLackError: the place cannot be written.
    """
    for attempt in range(_ATTEMPTS):
        refuse_unmarked(root)
        if is_marked(root):
            return
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f"{root.name}.", suffix=".making", dir=root.parent))
        except OSError as error:
            raise explain_os_error(error, root) from error
        try:
            write_marker(fresh, kept=_is_empty(root))
            os.chmod(fresh, ordinary_mode(0o777))
            os.rename(fresh, root)  # takes the place of nothing, or of an empty folder
            return
        except OSError as error:
            others = error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
            if not others or attempt + 1 == _ATTEMPTS:
                raise explain_os_error(error, root) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def drop_if_empty(root: Path) -> None:
    """Take a marked folder away that holds nothing else; one with a stranger's file in it stays."""
    with contextlib.suppress(OSError):  # a folder that stays does no harm
        if not is_marked(root) or [path.name for path in root.iterdir()] != [MARKER]:
            return
        if _read(root / MARKER).get("kept"):
            (root / MARKER).unlink()
            return
        aside = Path(tempfile.mkdtemp(prefix=f"{root.name}.", suffix=".making", dir=root.parent))
        os.rename(root, aside)
        (aside / MARKER).unlink()
        try:
            aside.rmdir()
        except OSError:  # somebody put a file there this very moment
            os.rename(aside, root)


@contextlib.contextmanager
def locked(root: Path, note: Callable[[str], None], *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a marked folder for this process; it is made, and taken away at the end where nothing is in it.

    A file system without locks keeps nobody apart.

    Args:
        root: the folder.
        note: told who holds it while this process waits.
        shared: hold it together with others that hold it so, against who wants it alone; then it stays at the end.
        wait: for who holds it; else that is an error.

    Raises:
        InputError: what lies there is not vitrim's.
        EnvironmentLackError: the place cannot be written, or another process holds it and `wait` is false.
    """
    handle = _hold(root, note, shared, wait)
    try:
        yield
    finally:
        if not shared:
            _say_holder(handle, None)
            if _is_at(handle, root / MARKER):  # else it is somebody else's by now
                drop_if_empty(root)
        os.close(handle)


def _hold(root: Path, note: Callable[[str], None], shared: bool, wait: bool) -> int:
    """An open marker with the lock on it."""
    ways = (os.O_RDONLY if shared else os.O_RDWR) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    attempts = 0
    while True:
        make_marked(root)
        try:
            handle = os.open(root / MARKER, ways)
        except OSError as error:
            attempts += 1
            if isinstance(error, FileNotFoundError) and attempts < _ATTEMPTS:
                continue  # whoever held it has taken it away meanwhile
            raise explain_os_error(error, root) from error
        try:
            _lock(handle, root, note, shared, wait)
            if _is_at(handle, root / MARKER):
                if not shared:
                    _say_holder(handle, os.getpid())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, root: Path, note: Callable[[str], None], shared: bool, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:
        return
    way = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, way | fcntl.LOCK_NB)
    except BlockingIOError:
        who = _holder(root)
        if not wait:
            raise EnvironmentLackError(f"{who} is at work in {root}; try again when it is done") from None
        note(f"{who} is at work on the same output ({root}); waiting for it")
        fcntl.flock(handle, way)
    except OSError:
        return


def _holder(root: Path) -> str:
    """Who a marker says holds its folder."""
    found = _read(root / MARKER)
    if not isinstance(found.get("process"), int):
        return "another process"
    elsewhere = found.get("machine") not in (None, platform.node())
    return f"process {found['process']}" + (f" on {found['machine']}" if elsewhere else "")


def _say_holder(handle: int, process: int | None) -> None:
    """Write into a marker who holds its folder; in one piece of one length, so that a reader sees a whole one."""
    kept = _parse(os.pread(handle, _LARGEST, 0)).get("kept")
    entries = {"kept": kept, "process": process, "machine": process and platform.node()[:100]}
    with contextlib.suppress(OSError):  # a full disk: who waits is told less
        os.pwrite(handle, _marker({key: value for key, value in entries.items() if value}), 0)


def _marker(entries: dict[str, object]) -> bytes:
    return (json.dumps({"format": _FORMAT, **entries}).ljust(_WIDTH - 1) + "\n").encode()


def _read(marker: Path) -> dict[str, object]:
    try:
        with open(marker, "rb") as stream:
            return _parse(stream.read(_LARGEST))
    except OSError:
        return {}


def _parse(text: bytes) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
