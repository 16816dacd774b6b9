"""How much memory the machine has, and what a heavy stage leaves behind of it, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
import sys


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
