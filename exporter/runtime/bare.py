"""Engines with nothing but tensorrt, numpy and libcudart: what `engine` takes from polygraphy. Torch-free.

This is what run_on_device.py builds and runs with, also on the Python 3.8 and TensorRT 8.5 of JetPack 5. Identities,
hash checks, typing and messages are `engine`'s and `trt`'s own.

Verified against a stand-in for TensorRT and for libcudart; unverified on a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EnvironmentLackError, InputError, UnsupportedError
from ..files import atomic_write
from . import cuda, engine
from .trt import import_tensorrt
from .trt import why_no_tensorrt as why_not

if TYPE_CHECKING:
    from .runners import Outputs

__all__ = ["TrtRunner", "install", "serialize", "why_not"]


def install() -> None:
    """Put this module in the place of polygraphy, for the whole process; `run_on_device.py` does."""
    engine.why_not = why_not
    engine._serialize = serialize
    engine.TrtRunner = TrtRunner  # type: ignore[assignment, misc]


def serialize(parts: tuple[Any, ...], options: dict[str, Any], take: Any, cache: Path | None) -> bytes:
    """As `engine._serialize`, by TensorRT's own interface.

    Args:
        parts: builder, network and parser.
        options: by the names of polygraphy's CreateConfig; None and False leave TensorRT's default.
        take: changes the finished configuration, or None.
        cache: timing cache to read, if it is there, and to write.
    """
    trt, (builder, network, _) = import_tensorrt(), parts
    config = builder.create_builder_config()
    for pool, size in options["memory_pool_limits"].items():
        config.set_memory_pool_limit(pool, size)
    config.profiling_verbosity = options["profiling_verbosity"]
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
    for name in ("fp16", "int8", "version_compatible", "exclude_lean_runtime"):
        if options.get(name):
            config.set_flag(getattr(trt.BuilderFlag, name.upper()))
    if options.get("precision_constraints") == "obey":
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if options.get("hardware_compatibility_level") is not None:
        config.hardware_compatibility_level = options["hardware_compatibility_level"]
    timings = config.create_timing_cache(cache.read_bytes() if cache.exists() else b"") if cache else None
    if timings is not None:
        config.set_timing_cache(timings, ignore_mismatch=False)
    if take:
        take(builder, network, config)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RuntimeError("it gives no reason")  # `engine` puts what TensorRT logged in its place
    if cache and timings is not None:
        atomic_write(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(serialized)


class TrtRunner:
    """An engine behind the runner interface, as `engine.TrtRunner`; its hash and identity are checked before loading.

    Args:
        engine_file: as written by `build_engine`.
        onnx: the graph it was built from.
        cuda_graph: launch inference as one recorded CUDA graph.

    Raises:
        InputError: the engine is not from here, or not of one input and static shapes.
        EnvironmentLackError: no TensorRT, no GPU or no libcudart.
        UnsupportedError: CUDA or TensorRT refuses; a graph cannot be recorded.
    """

    def __init__(
        self, engine_file: str | os.PathLike[str], onnx: str | os.PathLike[str], cuda_graph: bool = False
    ) -> None:
        lack = why_not()
        if lack:
            raise EnvironmentLackError(lack)
        trt = import_tensorrt()
        self.name = f"tensorrt-{trt.__version__}"
        self._messages, self._runtimes, self._engine = engine.load_engine(trt, Path(engine_file), Path(onnx))
        self._context = self._engine.create_execution_context()
        self._cuda = cuda.Cuda(cuda.load())
        self._host: dict[str, np.ndarray] = {}
        self._address: dict[str, int] = {}
        try:
            self._bind(trt, os.fspath(engine_file))
            self._launch = self._record() if cuda_graph else self._enqueue
        except BaseException:
            self.close()
            raise

    def _bind(self, trt: Any, where: str) -> None:
        """Memory for every input and output."""
        inputs: list[str] = []
        self.outputs: list[str] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
            kind = self._engine.get_tensor_dtype(name).name
            if kind not in engine._NUMPY or any(size < 1 for size in shape):
                raise InputError(f"{where}: {name} is {kind} {list(shape)}; shapes must be static")
            self._host[name] = np.zeros(shape, engine._NUMPY[kind])
            self._address[name] = self._cuda.malloc(max(self._host[name].nbytes, 1))
            self._context.set_tensor_address(name, self._address[name])
            is_input = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else self.outputs).append(name)
        if len(inputs) != 1:
            raise InputError(f"{where} has the inputs {inputs}; it needs one")
        self.input = inputs[0]
        self.shape, self.dtype = self._host[self.input].shape, self._host[self.input].dtype
        self.batch = int(self.shape[0])

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            reason = self._messages.last() or "no reason given"
            raise UnsupportedError(f"{self.name}: the engine failed to run ({reason})")

    def _record(self) -> Any:
        self.upload(self._host[self.input])
        self._enqueue()  # TensorRT wants one run before a capture, for what it does only once
        self._cuda.synchronize()
        return self._cuda.capture(self._enqueue)

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch, copies to and from the GPU included.

        Raises:
            InputError: the image has another shape or type.
        """
        if image.shape != self.shape or image.dtype != self.dtype:
            wanted = f"{self.dtype} {list(self.shape)}"
            raise InputError(f"{self.name} takes {wanted}, but got {image.dtype} {list(image.shape)}")
        np.copyto(self._host[self.input], image)
        self._cuda.copy_in(self._address[self.input], self._host[self.input])
        self._launch()
        return self.download()

    def infer(self) -> None:
        """Run on what the input buffer holds and wait; for benchmarks without copies."""
        self._launch()
        self._cuda.synchronize()

    def device_milliseconds(self) -> float:
        """One run without copies, timed by the GPU's own events, which see no launch and no waiting."""
        return self._cuda.device_milliseconds(self._launch)

    def upload(self, image: np.ndarray) -> None:
        """Copy a batch to the GPU and wait."""
        np.copyto(self._host[self.input], image)
        self._cuda.copy_in(self._address[self.input], self._host[self.input])
        self._cuda.synchronize()

    def download(self) -> Outputs:
        """Wait, and copy the outputs from the GPU."""
        for name in self.outputs:
            self._cuda.copy_out(self._host[name], self._address[name])
        self._cuda.synchronize()
        return {name: self._host[name].copy() for name in self.outputs}

    def close(self) -> None:
        """Give the GPU's memory back; the runner cannot be used after."""
        self._cuda.close()  # its graph goes before the context whose kernels it holds
        self._context = self._engine = self._runtimes = None

    def __enter__(self) -> TrtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
