"""Memory that a heavy stage leaves behind, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


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
