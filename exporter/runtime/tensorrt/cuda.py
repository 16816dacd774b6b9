"""As much of CUDA as running an engine takes: memory, copies, one stream, graphs; ctypes on libcudart. Torch-free.

Verified with libcudart 13 on an H100, and against a stand-in that copies for real.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import EnvironmentLackError, UnsupportedError

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/lib")
_TO_DEVICE, _TO_HOST = 1, 2
_THREAD_LOCAL = 1  # capture mode: what other threads do with CUDA meanwhile is none of our business
# Declared, because ctypes would cut a pointer to 32 bits. The graph call is the one whose arguments are the same in
# CUDA 11.4, 12 and 13; those of cudaGraphInstantiate changed.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaMalloc": (c_void_p, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreate": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, c_void_p),
    "cudaGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphDestroy": (c_void_p,),
    "cudaEventCreate": (c_void_p,),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventElapsedTime": (c_void_p, c_void_p, c_void_p),
    "cudaGetErrorString": (c_int,),
}


def candidates() -> list[str]:
    """Where libcudart may lie: the loader's own places, CUDA's folder, and the wheels that pip brings."""
    wheels = [
        str(path)
        for entry in sys.path
        if entry
        for pattern in ("nvidia/cuda_runtime/lib/libcudart.so.*", "nvidia/cu[0-9]*/lib/libcudart.so.*")
        for path in sorted(Path(entry).glob(pattern))
    ]
    return [*_NAMES, *(f"{folder}/{name}" for folder in _FOLDERS for name in _NAMES), *wheels]


def load(names: Callable[[], list[str]] = candidates, opening: Callable[[str], Any] = ctypes.CDLL) -> Any:
    """libcudart, the first that loads and that this driver takes, its calls declared.

    Raises:
        EnvironmentLackError: there is none.
    """
    refused = ""
    for name in names():
        try:
            library = declare(opening(name))
        except (OSError, AttributeError):  # not there, or older than graphs
            continue
        if library.cudaFree(None) == 0:  # makes the context; a runtime newer than the driver fails here
            return library
        refused = f"; {name} does not work with this driver"
    raise EnvironmentLackError(
        f"CUDA's runtime library (libcudart) of 11.4 or newer is not found{refused}: set LD_LIBRARY_PATH to its folder"
    )


def declare(library: Any) -> Any:
    """The library with the arguments of its calls declared.

    Raises:
        AttributeError: one is missing.
    """
    for call, arguments in SIGNATURES.items():
        getattr(library, call).argtypes = arguments
    library.cudaGetErrorString.restype = c_char_p
    return library


class Cuda:
    """One stream and the memory beside it; give it back with `close`.

    Args:
        library: from `load`.

    Raises:
        UnsupportedError: CUDA refuses a call, here or later; its reason.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._memory: list[int] = []
        self._graphs: list[int] = []
        self._events: list[int] = []
        self.stream = self._make("cudaStreamCreate")

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            said = (self._library.cudaGetErrorString(code) or b"").decode(errors="replace")
            hint = "; run without a CUDA graph" if "Graph" in name or "Capture" in name else ""
            raise UnsupportedError(f"{name} failed with CUDA error {code} ({said}){hint}")

    def _make(self, name: str, *arguments: Any) -> int:
        made = c_void_p()
        self._call(name, byref(made), *arguments)
        return int(made.value or 0)

    def malloc(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        self._memory.append(self._make("cudaMalloc", size))
        return self._memory[-1]

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Begin a copy to the GPU; the array must live until `synchronize`."""
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, _TO_DEVICE, self.stream)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """Begin a copy from the GPU."""
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, _TO_HOST, self.stream)

    def synchronize(self) -> None:
        """Wait until the stream is through."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None]:
        """Record what `enqueue` puts on the stream as one graph.

        Args:
            enqueue: neither allocates nor waits.

        Returns:
            launches the recording; does not wait.
        """
        graph = c_void_p()
        self._call("cudaStreamBeginCapture", self.stream, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:  # the capture must end, or the stream stays unusable; what `enqueue` says matters more
            self._library.cudaStreamEndCapture(self.stream, byref(graph))
            if graph:
                self._library.cudaGraphDestroy(graph.value)
            raise
        self._call("cudaStreamEndCapture", self.stream, byref(graph))
        try:
            executable = self._make("cudaGraphInstantiateWithFlags", graph.value, 0)
        finally:
            self._library.cudaGraphDestroy(graph.value)
        self._graphs.append(executable)
        return lambda: self._call("cudaGraphLaunch", executable, self.stream)

    def device_milliseconds(self, enqueue: Callable[[], object]) -> float:
        """Time of what `enqueue` puts on the stream, by the GPU's own clock; waits."""
        if not self._events:
            self._events = [self._make("cudaEventCreate"), self._make("cudaEventCreate")]
        begin, end = self._events
        self._call("cudaEventRecord", begin, self.stream)
        enqueue()
        self._call("cudaEventRecord", end, self.stream)
        self.synchronize()
        elapsed = c_float()
        self._call("cudaEventElapsedTime", byref(elapsed), begin, end)
        return float(elapsed.value)

    def close(self) -> None:
        """Give everything back."""
        for executable in self._graphs:
            self._library.cudaGraphExecDestroy(executable)
        for event in self._events:
            self._library.cudaEventDestroy(event)
        for address in self._memory:
            self._library.cudaFree(address)
        if self.stream:
            self._library.cudaStreamDestroy(self.stream)
        self._graphs, self._events, self._memory, self.stream = [], [], [], 0
