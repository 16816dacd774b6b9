"""Files that a user names: opened only where they are regular files, and of a size that their kind can have.

A FIFO or a device may never end, and a sparse file may be larger than memory; each is refused before it is read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

_DEEPEST = 100  # lists in lists of a JSON file
_LARGEST_INTEGER = 2**63 - 1
_TYPES = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class InputKind(Enum):
    """What a file should be: how a message calls it, and the bytes that it has at most."""

    RECIPE = ("recipe", 1 << 20)
    JSON = ("JSON file", 1 << 26)
    GRAPH = ("graph", (1 << 31) - 1)  # what protobuf takes
    ARRAYS = ("file of arrays", 1 << 36)
    PICTURE = ("picture", 1 << 30)
    ARCHIVE = ("archive of pictures", 1 << 44)
    CLASSES = ("list of class names", 1 << 24)
    CHECKPOINT = ("checkpoint", 1 << 38)
    TIMINGS = ("timing cache", 1 << 31)

    def __init__(self, label: str, largest: int) -> None:
        self.label, self.largest = label, largest


def open_file(path: str | os.PathLike[str], kind: InputKind) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        InputError: it is missing, cannot be read, is no regular file, or is larger than its kind can be.
    """
    name = os.fspath(path)
    try:
        # without O_NONBLOCK, opening a FIFO waits for somebody to write
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        raise _cannot_read(name, kind, error) from error
    try:
        found = os.fstat(handle)
        _require_regular(name, kind, found)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def require_file(path: str | os.PathLike[str], kind: InputKind) -> None:
    """Refuse what `open_file` refuses, for libraries that open a path themselves.

    Raises:
        InputError: see `open_file`.
    """
    open_file(path, kind).close()


def read_bytes(path: str | os.PathLike[str], kind: InputKind) -> bytes:
    """The whole of a regular file.

    Raises:
        InputError: see `open_file`.
    """
    with open_file(path, kind) as stream:
        try:
            data = stream.read(kind.largest + 1)  # some files of the system say that they are empty, and are not
        except (OSError, MemoryError) as error:
            raise _cannot_read(os.fspath(path), kind, error) from error
    if len(data) > kind.largest:
        raise _too_large(os.fspath(path), kind, len(data))
    return data


def read_text(path: str | os.PathLike[str], kind: InputKind) -> str:
    """The whole of a text file in UTF-8.

    Raises:
        InputError: see `open_file`; or it is not a text file.
    """
    try:
        return read_bytes(path, kind).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the {kind.label} {os.fspath(path)}: it is not a text file") from error


def read_json(path: str | os.PathLike[str], what: str, maker: str) -> object:
    """Plain data of a JSON file that a person may have edited.

    Args:
        path: the file.
        what: it should hold, for the message.
        maker: the command that writes such files, for the message.

    Raises:
        InputError: the file cannot be read or is not JSON, see `parse_json`; with the place.
    """
    article = "an" if what[0] in "aeio" else "a"
    return parse_json(read_text(path, InputKind.JSON), os.fspath(path), f"`{maker}` writes {article} {what}")


def parse_json(text: str, where: str, remedy: str) -> object:
    """Plain data of a JSON text: finite numbers, whole ones of 64 bits, text that can be written, nested 100 deep.

    Args:
        text: JSON.
        where: it stands, for the message.
        remedy: what to do, for the message.

    Raises:
        InputError: it is something else; with the place.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
        fault = _fault(data)
    except (ValueError, RecursionError) as error:
        at = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        said = f" ({error})" if isinstance(error, _NoNumberError) else ""
        raise InputError(f"{where} is not valid JSON{at}{said}; {remedy}") from error
    if fault:
        raise InputError(f"{where} holds {fault}; {remedy}")
    return data


class _NoNumberError(ValueError):
    """A word that Python's reader takes for a number, and JSON does not."""


def _refuse_constant(word: str) -> object:
    raise _NoNumberError(f"{word} is no number")


def _fault(data: object) -> str:
    """What of parsed JSON nothing could go on with; empty where nothing is amiss."""
    layer = [data]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for value in layer:
            if isinstance(value, dict):
                inner += value
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and is_torn(value):
                return "half a character"
            elif isinstance(value, (int, float)) and not abs(value) <= _most(value):
                return "a number that is too large"
        if not inner:
            return ""
        layer = inner
    return f"lists that are nested more than {_DEEPEST} deep"


def _most(value: float) -> float:
    return _LARGEST_INTEGER if isinstance(value, int) else sys.float_info.max


def is_torn(text: str) -> bool:
    """Whether a text holds half of a pair of UTF-16, which no file and no screen takes."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a regular file; False for what cannot be looked at."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a folder; False for what cannot be looked at."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def type_words(mode: int) -> str | None:
    """What a place is that is no regular file, such as `a folder`, by its `st_mode`; None for a regular one."""
    return next((words for is_type, words in _TYPES if is_type(mode)), None)


def _require_regular(name: str, kind: InputKind, found: os.stat_result) -> None:
    called = type_words(found.st_mode)
    if called is not None:
        raise InputError(f"cannot read {name}: it is {called}; give the {kind.label} itself")
    if found.st_size > kind.largest:
        raise _too_large(name, kind, found.st_size)


def _too_large(name: str, kind: InputKind, size: int) -> InputError:
    return InputError(f"cannot read {name}: it has {size} bytes, and a {kind.label} has at most {kind.largest}")


def _cannot_read(name: str, kind: InputKind, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        return InputError(f"cannot read {name}: it is a socket; give the {kind.label} itself")
    reason = error.strerror if isinstance(error, OSError) else None
    return InputError(f"cannot read {name}: {(reason or str(error) or 'out of memory').lower()}")
