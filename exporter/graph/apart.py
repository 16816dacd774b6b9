"""Work on a stranger's file in a process of its own: a library that dies, hangs or eats all memory takes nothing along.

ONNX's shape inference and its inliner are such libraries: some damaged graphs end the process that asks them.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import time
import warnings
from collections.abc import Callable

_PIECE = 1 << 20


class ApartError(RuntimeError):
    """The process ended, or was ended, before it gave anything; the message says why."""


def run_apart(work: Callable[[], bytes], seconds: float = 30.0, memory: int = 1 << 30) -> bytes:
    """What a piece of work gives, done in a fork of this process; here itself where a system has none.

    Args:
        work: it may read whatever is in this process, and change nothing of it.
        seconds: after which it is ended.
        memory: bytes that it may take beside those of this process.

    Raises:
        ApartError: it was ended, or ended by itself.
        RuntimeError: what the work raised, as text.
    """
    if not hasattr(os, "fork"):
        return work()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of whose locks the work takes
        child = os.fork()
    if child == 0:
        _answer(work, writing, memory)
    os.close(writing)
    try:
        answer = _read(reading, seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answer:
        reason = "it wants all memory" if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}"
        raise ApartError(f"the library ends on this graph ({reason})")
    if answer[:1] == b"-":
        raise RuntimeError(answer[1:].decode(errors="replace"))
    return answer[1:]


def _answer(work: Callable[[], bytes], writing: int, memory: int) -> None:
    """In the fork: do the work, send what it gives, and end without any of this process's own endings."""
    try:
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # where C++ writes its last words
            os.dup2(quiet, stream)
        _limit(memory)
        try:
            answer = b"+" + work()
        except MemoryError:
            answer = b""
        except BaseException as error:
            answer = b"-" + str(error).encode(errors="replace")[:1000]
        view = memoryview(answer)
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(0)


def _limit(memory: int) -> None:
    """No more memory than this much beside what is there, and no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", "rb") as stream:
            now = int(stream.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):  # no Linux
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = now + memory
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _read(reading: int, seconds: float) -> bytes:
    """All that the fork sends.

    Raises:
        ApartError: it took too long.
    """
    end = time.monotonic() + seconds
    parts: list[bytes] = []
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            raise ApartError(f"the library does not come to an end on this graph within {seconds:g} s")
        piece = os.read(reading, _PIECE)
        if not piece:
            return b"".join(parts)
        parts.append(piece)
