"""Engines with nothing but tensorrt, numpy and libcudart: `engine`'s functions without polygraphy. Torch-free.

This is what run_on_device.py builds and runs with, also on the Python 3.8 and TensorRT 8.5 of JetPack 5. Identities,
hash checks, typing and messages are `engine`'s and `trt`'s own.

Verified against a stand-in for TensorRT and for libcudart; unverified on a GPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EnvironmentLackError, InputError, UnsupportedError
from ..files import atomic_path, atomic_write, sha256
from . import cuda, engine
from .engine import check_identity, device_identity, sidecar
from .trt import (
    create_network,
    import_tensorrt,
    listen,
    pin_float32,
    typing_for,
    version_of,
)
from .trt import why_no_tensorrt as why_not

if TYPE_CHECKING:
    from .runners import Outputs

__all__ = ["TrtRunner", "build_engine", "check_identity", "device_identity", "sidecar", "why_not"]


def build_engine(
    onnx: str | os.PathLike[str],
    engine_file: str | os.PathLike[str],
    *,
    precision: Any = "fp32",
    pinned: Collection[str] = (),
    workspace_mib: int = 1024,
) -> dict[str, Any]:
    """As `engine.build_engine`, with the same arguments but the timing cache, the same errors and the same result."""
    lack = why_not()
    if lack:
        raise EnvironmentLackError(lack)
    trt = import_tensorrt()
    source = sha256(onnx)
    typing = typing_for(version_of(trt.__version__), precision)
    messages = listen(trt)
    builder = trt.Builder(messages)
    network = create_network(trt, builder, typing)
    trt.init_libnvinfer_plugins(messages, "")
    parser = trt.OnnxParser(network, messages)
    if not parser.parse_from_file(os.fspath(onnx)):
        raise UnsupportedError(f"TensorRT {trt.__version__} refuses {os.fspath(onnx)}: {engine._parser_says(parser)}")
    if typing.fp16_flag:
        pin_float32(trt, network, pinned)
    config = _configure(trt, builder, typing, precision, workspace_mib)
    try:
        serialized = builder.build_serialized_network(network, config)
    except Exception as error:  # the binding raises types of its own
        raise _cannot_build(trt, onnx, messages.last() or " ".join(str(error).split())[:240]) from error
    if serialized is None:
        raise _cannot_build(trt, onnx, messages.last() or "no reason given")
    path = Path(engine_file)
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(serialized))
    identity = {"engine_sha256": sha256(path), "onnx_sha256": source, **device_identity(), "typing": typing.why}
    atomic_write(sidecar(path), json.dumps(identity, indent=2) + "\n")
    return identity


def _cannot_build(trt: Any, onnx: str | os.PathLike[str], reason: str) -> UnsupportedError:
    return UnsupportedError(f"TensorRT {trt.__version__} cannot build {os.fspath(onnx)}: {reason}")


def _configure(trt: Any, builder: Any, typing: Any, precision: str, workspace_mib: int) -> Any:
    """The builder's configuration: float32 is float32 and no TF32; flags of precision only where typing is weak."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if typing.fp16_flag:
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
    return config


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
        self._messages, self._runtime, self._engine = engine.load_engine(trt, Path(engine_file), Path(onnx))
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
        self._context = self._engine = self._runtime = None

    def __enter__(self) -> TrtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
