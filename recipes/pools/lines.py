"""A file of finished work: a head that says what it is of, then a line of JSON for each result, synced as it comes.

A process that is killed leaves whole lines, and at most one torn line at the end, which is cut off on opening it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.files import explain_os_error, explain_read_error


@dataclass(frozen=True)
class Kind:
    """What a file of lines is.

    Attributes:
        format: begins the head, such as `vitrim-evaluation-journal/1`.
        label: for messages, such as `journal of an evaluation`.
        words: by name of what the lines depend on, how another one is called.
        way_out: what to do where it is of something else or damaged.
    """

    format: str
    label: str
    words: Mapping[str, str] = field(default_factory=dict)
    way_out: str = "name another output, or remove the file to begin anew"

    @property
    def begins(self) -> bytes:
        """What the file of a run that was killed at once begins with."""
        return f'{{"format": "{self.format}"'.encode()


class Lines:
    """An open file of lines, which nobody else writes meanwhile.

    Args:
        path: the file; a new one is begun where there is none.
        kind: of it.
        head: what the lines depend on, by name, as texts.

    Attributes:
        found: the whole lines that were there, first to last; one that is no JSON object is an empty mapping.

    Raises:
        InputError: the file is of another kind, of something else, or in use.
        EnvironmentLackError: it cannot be written.
    """

    def __init__(self, path: Path, kind: Kind, head: Mapping[str, str]) -> None:
        self.path, self.kind, self.found = path, kind, list[dict[str, Any]]()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise explain_os_error(error, path) from error
        try:
            self._lock()
            self._resume({"format": kind.format, **head})
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # no POSIX: two runs at once would do the work twice, which counts once
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another run is writing {self.path}; wait for it, or name another output") from error
        except OSError:  # a file system without locks: as without POSIX
            return

    def _resume(self, head: dict[str, str]) -> None:
        try:
            text = self.path.read_bytes()
        except OSError as error:
            raise explain_read_error(error, self.path) from error
        lines = text.split(b"\n")
        torn = lines.pop()
        if not lines:
            if not (torn.startswith(self.kind.begins) or self.kind.begins.startswith(torn)):
                raise InputError(f"{self.path} is no {self.kind.label}; name another output")
            self._cut(0)
            self.append(head)
            return
        self._hold_head(_parse(lines[0]), head)
        self.found = [_parse(line) for line in lines[1:]]
        if torn:
            self._cut(len(text) - len(torn))

    def _hold_head(self, found: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
        """Refuse lines of something else."""
        if found.get("format") != self.kind.format:
            raise InputError(f"{self.path} is no {self.kind.label}, or of another version; name another output")
        other = next((key for key, value in wanted.items() if found.get(key) != value), None)
        if other is not None:
            words = self.kind.words.get(other, f"another {other}")
            raise InputError(f"{self.path} is of {words}; {self.kind.way_out}")

    def damaged(self, index: int) -> InputError:
        """What to say of a line of `found` that does not hold what it should."""
        return InputError(f"line {index + 2} of {self.path} is damaged; remove the file to begin anew")

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)

    def append(self, data: Mapping[str, Any]) -> None:
        """Add a line: one write and one sync, so that it is there whole, or torn at the end of the file.

        Raises:
            EnvironmentLackError: the file cannot be written.
        """
        line = json.dumps(data, allow_nan=False).encode() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise EnvironmentLackError(f"cannot write {self.path}: the disk is full; free some space and go on")
            os.fsync(self._file)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def remove(self) -> None:
        """Delete the file: what it held is in the result."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; another run may take it."""
        os.close(self._file)

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(line: bytes) -> dict[str, Any]:
    """What a line holds; nothing where it is no JSON object."""
    with suppress(ValueError, RecursionError):
        data = json.loads(line)
        return data if isinstance(data, dict) else {}
    return {}
