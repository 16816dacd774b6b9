"""A finished folder put in place of another in one step, and what killed runs leave behind. Torch-free."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..core.files import explain_os_error, ordinary_mode
from .marked import MARKER, is_marked, write_marker

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What systems and file systems answer that cannot exchange names: old kernels, overlays, network mounts, sandboxes.
_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}
_NEW, _OLD = "new", "old"  # in a staging folder's holder: what is being made, and what was there before
_locks: dict[Path, int] = {}


def staging_folder(final: Path) -> Path:
    """A new empty folder beside `final`, on the same file system, which `sweep` leaves alone while this process lives.

    It lies in a hidden folder of its own with vitrim's marker, so that nothing of anybody else's is ever swept.

    Raises:
        EnvironmentLackError: the place cannot be written.
    """
    for old in [path for path in _locks if not path.exists()]:
        _unlock(old)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        while True:
            name = tempfile.mkdtemp(prefix=f".{final.name}.{os.getpid()}.", suffix=".staging", dir=final.parent)
            holder = Path(name)
            if _lock(holder):
                write_marker(holder)
                (holder / _NEW).mkdir()
                return holder / _NEW
    except OSError as error:
        raise explain_os_error(error, final) from error


def replace_folder(staging: Path, final: Path, look: Callable[[Path], None] | None = None) -> None:
    """Put a finished folder in place of `final`; a reader sees the old one or the new one, also after a power cut.

    Linux exchanges the two names atomically. Elsewhere the old one is renamed away first, and `sweep` brings it back
    if the process dies in between.

    Args:
        staging: from `staging_folder(final)`, filled.
        final: absent, or a folder that may go; what it is is not looked at here.
        look: called with `final` at the last moment; what it raises leaves everything as it was.

    Raises:
        EnvironmentLackError: the file system refuses.
    """
    try:
        os.chmod(staging, ordinary_mode(0o777))
        _sync(staging)
        if look is not None:
            look(final)
        if not final.exists():
            staging.rename(final)
        elif not _exchange(staging, final):
            final.rename(staging.parent / _OLD)
            staging.rename(final)
        _sync_folder(final.parent)
    except OSError as error:
        _bring_back(staging.parent, final)
        raise explain_os_error(error, final) from error
    discard(staging, final)  # after an exchange: the old folder


def discard(staging: Path, final: Path) -> None:
    """Remove what is left of a staging folder; nothing to do where it is gone."""
    _clear(staging.parent, final)
    _unlock(staging.parent)


def sweep(final: Path) -> None:
    """Remove staging folders that killed runs left beside `final`; those of live processes stay, and strangers'."""
    ours = re.compile(re.escape(f".{final.name}.") + r"[0-9]+\.[a-z0-9_]{8}\.staging")
    for holder in final.parent.glob(f".{glob.escape(final.name)}.*.staging"):
        if not ours.fullmatch(holder.name) or holder.is_symlink() or _in_use(holder):
            continue
        if is_marked(holder):
            _clear(holder, final)
        else:
            _clear_unmarked(holder)


def _clear(holder: Path, final: Path) -> None:
    """Remove what vitrim put into a staging folder's holder, and the holder where nothing else is in it."""
    if not is_marked(holder):
        return
    _bring_back(holder, final)
    if (holder / _OLD).is_dir() and not os.path.lexists(final):
        return  # it could not be brought back
    for name in (_NEW, _OLD):
        if not (holder / name).is_symlink():
            shutil.rmtree(holder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # a stranger's file is in it, which stays
        if [path.name for path in holder.iterdir()] == [MARKER]:
            (holder / MARKER).unlink()
            holder.rmdir()


def _clear_unmarked(holder: Path) -> None:
    """Remove the folder of a run that was killed before it had marked it; one that holds anything stays."""
    with contextlib.suppress(OSError):
        marker = holder / MARKER
        if [path.name for path in holder.iterdir()] == [MARKER] and marker.lstat().st_size == 0:
            marker.unlink()
        holder.rmdir()


def _bring_back(holder: Path, final: Path) -> None:
    """Of a system without exchange, stopped between the two renames: the old folder comes back."""
    old = holder / _OLD
    if old.is_dir() and not old.is_symlink() and not os.path.lexists(final):
        with contextlib.suppress(OSError):  # it stays where it is, and the next sweep tries again
            old.rename(final)


def _lock(folder: Path) -> bool:
    """Hold a lock on a folder until this process ends, however it ends; False if a sweep took the folder meanwhile.

    A lock and no process id alone: in a container every run has the same few ids, so the dead would look alive.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, FileNotFoundError, PermissionError):
        return folder.exists()
    with contextlib.suppress(OSError):  # a file system without locks: the process id has to do
        fcntl.flock(handle, fcntl.LOCK_EX)
    _locks[folder] = handle
    if folder.exists():
        return True
    _unlock(folder)
    return False


def _unlock(folder: Path) -> None:
    handle = _locks.pop(folder, None)
    if handle is not None:
        os.close(handle)


def _in_use(folder: Path) -> bool:
    owner = int(folder.name.split(".")[-3])
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return _alive(owner)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return _alive(owner)
    finally:
        os.close(handle)
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync_folder(path)
        elif path.is_file():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames within a folder last; systems that cannot open folders need none."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
