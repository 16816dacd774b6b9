"""Standard streams that may be closed, or whose reader has had enough."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """A standard stream. What nobody reads any more goes nowhere; another error is raised once, and not at the end."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what has no reader."""
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise
            return len(data)


def open_streams() -> None:
    """Make standard streams that can be written to, whatever the shell has done with them.

    A closed one is opened on nothing first: the next file to be opened would get its number, and what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is not None:
            old.flush()
        encoding = getattr(old, "encoding", None) or "utf-8"
        binary = io.BufferedWriter(_Pipe(number, "w", closefd=False))
        lines = name == "stderr" or os.isatty(number)
        setattr(sys, name, io.TextIOWrapper(binary, encoding, errors="backslashreplace", line_buffering=lines))
