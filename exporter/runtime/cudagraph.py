"""A CUDA graph of what is put on a stream: captured once, replayed with one call. Torch-free.

The calls are those of CUDA's runtime, 11.4 to 13, through ctypes; every status is checked. Unverified on a GPU: the
tests run against a stand-in, and against the real library only up to its refusal for want of a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ..errors import EnvironmentLackError, UnsupportedError

_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads may go on calling CUDA


def cuda_runtime() -> Any:
    """The CUDA runtime library that polygraphy's streams and buffers use.

    Raises:
        EnvironmentLackError: it is not to be found.
    """
    from polygraphy.cuda import wrapper
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):  # its log goes to standard output
            return wrapper().handle
    except Exception as error:  # OSError, or polygraphy's own
        reason = " ".join(str(error).split())[:160]
        raise EnvironmentLackError(
            f"the CUDA runtime library cannot be loaded ({reason}): put the folder of libcudart.so on LD_LIBRARY_PATH"
        ) from error


class CudaGraph:
    """What `work` puts on a stream, as one graph that can be launched again and again.

    Args:
        runtime: the CUDA runtime library.
        stream: address of a stream that is no default stream.
        work: puts its work on that stream, and neither allocates nor waits.

    Raises:
        UnsupportedError: CUDA refuses to capture it; its reason.
    """

    def __init__(self, runtime: Any, stream: int, work: Callable[[], None]) -> None:
        self._runtime, self._stream = runtime, ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        self._check("cudaStreamBeginCapture", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            work()
        except BaseException:  # the capture must end, or the stream stays unusable; what `work` says matters more
            runtime.cudaStreamEndCapture(self._stream, ctypes.byref(graph))
            if graph:
                runtime.cudaGraphDestroy(graph)
            raise
        self._check("cudaStreamEndCapture", self._stream, ctypes.byref(graph))
        try:  # WithFlags: plain cudaGraphInstantiate changed its arguments with CUDA 12
            flags = ctypes.c_ulonglong(0)
            self._check("cudaGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, flags)
        finally:
            runtime.cudaGraphDestroy(graph)

    def launch(self) -> None:
        """Put the whole graph on the stream; does not wait.

        Raises:
            UnsupportedError: CUDA refuses; its reason.
        """
        self._check("cudaGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Give the graph back; it cannot be launched after."""
        if self._executable:
            self._runtime.cudaGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    def _check(self, name: str, *arguments: Any) -> None:
        status = int(getattr(self._runtime, name)(*arguments))
        if status:
            describe = self._runtime.cudaGetErrorString
            describe.restype = ctypes.c_char_p
            said = (describe(ctypes.c_int(status)) or b"").decode(errors="replace")
            raise UnsupportedError(f"{name} failed with CUDA error {status} ({said}); run without a CUDA graph")
