"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EnvironmentLackError, InputError, VitrimError
from .inputs import InputKind, open_file

_HINTS = {
    errno.ENOSPC: "the disk is full; free some space or choose another output folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another output folder",
    errno.EROFS: "the file system is read-only; choose another output folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def explain_os_error(error: OSError, path: str | os.PathLike[str]) -> VitrimError:
    """Turn an operating system error while writing `path` into one line with a way out.

    A file elsewhere that the error names was only read for it, and is named instead.
    """
    if isinstance(error.filename, (str, bytes)) and error.filename2 is None:
        folder = os.path.dirname(os.path.abspath(os.fspath(path)))
        named = os.path.abspath(os.fsdecode(error.filename))
        if os.path.commonpath([folder, named]) not in (folder, named):
            return explain_stray_error(error)
    reason = _HINTS.get(error.errno or 0, (error.strerror or str(error)).lower())
    return EnvironmentLackError(f"cannot write {os.fspath(path)}: {reason}")


def explain_read_error(error: OSError, path: str | os.PathLike[str]) -> InputError:
    """Turn an operating system error while reading `path` into one line."""
    return InputError(f"cannot read {os.fspath(path)}: {(error.strerror or str(error)).lower()}")


def explain_stray_error(error: OSError) -> VitrimError:
    """Turn an operating system error that nobody has explained into one line; only some tell that they wrote."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return EnvironmentLackError(f"cannot write {name}: {_HINTS[error.errno]}")
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return InputError(f"cannot use {name}: {reason}" if error.filename else f"the system refuses: {reason}")


def ordinary_mode(mode: int) -> int:
    """Permissions that a file or folder of this process gets by itself: `mode` without what the umask takes."""
    umask = os.umask(0)
    os.umask(umask)
    return mode & ~umask


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """A file under another name; a copy where the file system has no hard links.

    Raises:
        OSError: it can be neither linked nor copied.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed over it on success, removed on failure.

    Raises:
        EnvironmentLackError: the folder cannot be written (full, read-only, no permission).
    """
    final = Path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
        os.close(handle)
    except OSError as error:
        raise explain_os_error(error, final) from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, ordinary_mode(0o666))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, final)
    except OSError as error:
        raise explain_os_error(error, final) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path` so that a reader sees the old file or the new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file, read in pieces.

    Raises:
        InputError: the file cannot be read, or is no regular file.
    """
    digest = hashlib.sha256()
    try:
        with open_file(path, InputKind.CHECKPOINT) as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise explain_read_error(error, path) from error
    return digest.hexdigest()
