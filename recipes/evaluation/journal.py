"""What has been judged so far: a line of JSON a shard, written to the disk before the next begins.

    {"format": "vitrim-evaluation-journal/1", "bundle": SHA-256, "images": SHA-256, ...}
    {"start": 100, "answers": [[dense, pruned, 1 where they agree else 0, divergence], ...]}

A process that is killed leaves whole lines, and at most one torn line at the end, which is cut off on opening it again.
A shard that stands there twice counts once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.files import explain_os_error, explain_read_error
from .shards import Answer

FORMAT = "vitrim-evaluation-journal/1"
_BEGINS = f'{{"format": "{FORMAT}"'.encode()
_WORDS = {"bundle": "another bundle", "images": "other images", "version": "another version of vitrim"}


class Journal:
    """An open journal, which nobody else writes meanwhile.

    Args:
        path: the file; a new one is begun where there is none.
        head: what the answers depend on, by name, as texts.

    Attributes:
        answers: by index of the image.

    Raises:
        InputError: the file is no journal, of something else, damaged, or in use.
        EnvironmentLackError: it cannot be written.
    """

    def __init__(self, path: Path, head: Mapping[str, str]) -> None:
        self.path, self.answers = path, dict[int, Answer]()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise explain_os_error(error, path) from error
        try:
            self._lock()
            self._resume({"format": FORMAT, **head})
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
            if not (torn.startswith(_BEGINS) or _BEGINS.startswith(torn)):
                raise InputError(f"{self.path} is no journal of an evaluation; name another output")
            self._cut(0)
            self._append(head)
            return
        _hold_head(self.path, _parse(lines[0]), head)
        for number, line in enumerate(lines[1:], 2):
            start, found = self._shard(line, number)
            self._take(start, found)
        if torn:
            self._cut(len(text) - len(torn))

    def _shard(self, line: bytes, number: int) -> tuple[int, list[Answer]]:
        data = _parse(line)
        start, rows = data.get("start"), data.get("answers")
        found = [_answer(row) for row in rows] if isinstance(rows, list) else [None]
        if type(start) is not int or start < 0 or None in found:
            raise InputError(f"line {number} of {self.path} is damaged; remove the file to begin anew")
        return start, [one for one in found if one is not None]

    def _take(self, start: int, found: list[Answer]) -> None:
        for index, answer in enumerate(found, start):
            self.answers.setdefault(index, answer)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)

    def _append(self, data: Mapping[str, Any]) -> None:
        """One write and one sync, so that a line is there whole, or torn at the end of the file."""
        try:
            line = _line(data)
            if os.write(self._file, line) != len(line):
                raise EnvironmentLackError(f"cannot write {self.path}: the disk is full; free some space and go on")
            os.fsync(self._file)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def add(self, start: int, found: list[Answer]) -> None:
        """Keep a shard.

        Args:
            start: index of its first image.
            found: of its images, in order.

        Raises:
            EnvironmentLackError: the file cannot be written.
        """
        rows = [[one.dense, one.pruned, int(one.same), one.kl] for one in found]
        self._append({"start": start, "answers": rows})
        self._take(start, found)

    def remove(self) -> None:
        """Delete the file: what it held is in the result."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    """What a line holds; nothing where it is no JSON object."""
    with suppress(ValueError, RecursionError):
        data = json.loads(line)
        return data if isinstance(data, dict) else {}
    return {}


def _hold_head(path: Path, found: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Refuse a journal of something else."""
    if found.get("format") != FORMAT:
        raise InputError(f"{path} is no journal of an evaluation, or of another version; name another output")
    other = next((key for key, value in wanted.items() if found.get(key) != value), None)
    if other is not None:
        words = _WORDS.get(other, f"another {other}")
        raise InputError(f"{path} is of {words}; name another output, or remove the file to begin anew")


def _answer(row: object) -> Answer | None:
    """The answer of a row; None where it is none."""
    if not isinstance(row, list) or [type(value) for value in row] != [int, int, int, float]:
        return None
    dense, pruned, same, kl = row
    fits = dense >= 0 and pruned >= 0 and same in (0, 1) and math.isfinite(kl)
    return Answer(dense, pruned, bool(same), kl) if fits else None
