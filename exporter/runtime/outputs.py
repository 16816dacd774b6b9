"""What may be written where a user says: nothing of theirs is replaced but by their word. Torch-free.

A command looks before it does any work, and once more before it writes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..core.files import explain_os_error
from ..core.inputs import type_words
from ..core.records import Record
from .bundles.place import refuse_in_bundle

_LONGEST_ADDED = 16  # bytes that a temporary or hidden name is longer than the output's own


@dataclass(frozen=True)
class Output:
    """A kind of file that a command writes.

    Attributes:
        label: how a message calls it.
        read: of a path; raises `InputError` where the file is not of this kind. None: no file is replaced unforced.
        example: a name for it.
    """

    label: str
    read: Callable[[Path], object] | None
    example: str


def output_of(record: type[Record], label: str) -> Output:
    """The kind of a file that holds a record as JSON."""
    return Output(label, lambda path: record.read(path, label), f"{label.split()[0]}.json")


def check_output(
    path: str | os.PathLike[str],
    kind: Output,
    *,
    force: bool = False,
    inputs: Mapping[str, str | os.PathLike[str]] | None = None,
    instead: str | None = None,
) -> str | None:
    """Refuse a place whose loss the user would regret.

    Args:
        path: to be written.
        kind: of file.
        force: replace any plain file that is not among the inputs.
        inputs: by what they are, the files and folders that the command itself reads.
        instead: what the user can do where something else is there; None: name another file, or `--force`.

    Returns:
        what is replaced, for the user; None where nothing is there.

    Raises:
        InputError: something else than a file of this kind is there, it is an input, or it lies in a bundle.
        EnvironmentLackError: the folder cannot be written.
    """
    place = Path(path)
    try:
        refuse_in_bundle(place)
        _refuse_inputs(place, inputs or {})
        _refuse_parent(place)
        found = place.lstat() if os.path.lexists(place) else None
    except (OSError, ValueError) as error:
        raise _explain(error, place) from error
    if found is None:
        return None
    called = type_words(found.st_mode)
    if called is not None:
        wanted = f"name the {kind.label} file to write, such as {kind.example}"
        raise InputError(f"{place} is {called}; {instead or wanted}")
    if _is_of(place, kind):
        return f"replaces the {kind.label} that was at {place}"
    if force:
        _refuse_content(place, inputs or {})
        return f"replaces the file that was at {place}"
    other = "" if kind.read is None else f" and is no {kind.label}"
    raise InputError(f"{place} exists{other}; {instead or 'name another file, or replace it with --force'}")


def refuse_over_inputs(final: Path, inputs: Mapping[str, str | os.PathLike[str]]) -> None:
    """Refuse a folder for an output that is, or holds, what the command reads.

    Raises:
        InputError: naming what would be lost.
    """
    folder = final.resolve()
    for name, path in inputs.items():
        found = Path(path).resolve()
        if folder == found or folder in found.parents:
            raise InputError(f"{final} {'is' if folder == found else 'holds'} {name} ({found}); name another folder")


def _is_of(place: Path, kind: Output) -> bool:
    if kind.read is None:
        return False
    try:
        kind.read(place)
    except InputError:
        return False
    return True


def _refuse_inputs(place: Path, inputs: Mapping[str, str | os.PathLike[str]]) -> None:
    """A file that is read in this very run is never written, whatever it is called."""
    for name, path in inputs.items():
        same = os.path.realpath(place) == os.path.realpath(path)
        if same or (os.path.exists(place) and os.path.exists(path) and os.path.samefile(place, path)):
            raise InputError(f"{place} is {name}, which this run reads; name another file")


def _refuse_content(place: Path, inputs: Mapping[str, str | os.PathLike[str]]) -> None:
    """Nor is a file of a folder that is read, such as one of its images."""
    for name, path in inputs.items():
        if os.path.isdir(path) and Path(path).resolve() in place.resolve().parents:
            raise InputError(f"{place} lies in {name}, which this run reads; name another file")


def _refuse_parent(place: Path) -> None:
    """A folder that cannot be written is better known before the work than after it."""
    folder = place.parent
    while not _is_there(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if len(os.fsencode(place.name)) + _LONGEST_ADDED > longest:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(place))


def _is_there(folder: Path) -> bool:
    try:
        folder.lstat()
    except FileNotFoundError:
        return folder == folder.parent
    return True


def _explain(error: Exception, place: Path) -> Exception:
    if isinstance(error, OSError):
        return explain_os_error(error, place)
    return InputError(f"{str(place)!r} is no path that can be written: {str(error).lower()}")
