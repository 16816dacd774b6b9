"""How much memory the machine has, and what a heavy stage leaves behind of it, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import sys
from collections.abc import Iterator

_BY_ITSELF = 1000  # objects that Python 3.12 freezes are some hundreds
_OLD = False  # whether what is old has been set aside by `only_new_garbage`


def machine_memory() -> int | None:
    """Bytes of this machine's memory; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def give_back_memory() -> None:
    """Collect cycles, and return free pages to the system.

    PyTorch's exporter and onnx-graphsurgeon leave cycles that hold whole graphs. glibc keeps what was freed for later:
    half of a process's memory, after a graph of 88 MB was rewritten.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


@functools.cache
def _program_freezes() -> bool:
    """Whether the program has frozen objects itself; asked once, as to count half a million takes 0.1 s."""
    return gc.get_freeze_count() > _BY_ITSELF


@contextlib.contextmanager
def only_new_garbage() -> Iterator[None]:
    """Look for garbage among what is made inside alone: what a process has loaded takes 0.3 s each time.

    In a program that has frozen objects itself, nothing changes.
    """
    global _OLD
    if _OLD or _program_freezes():
        yield
        return
    gc.freeze()
    _OLD = True
    try:
        yield
    finally:
        _OLD = False
        gc.unfreeze()
