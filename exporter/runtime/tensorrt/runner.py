"""TensorRT engines that can be called with numpy arrays, loaded after our own hash check. Torch-free.

Host code in an engine is never allowed. An engine that newer TensorRTs take ("version-compatible") normally carries
NVIDIA's lean runtime inside, which is host code; ours are built without it, so a newer TensorRT needs that library from
the machine itself: name it in $VITRIM_LEAN_RUNTIME.

Verified with TensorRT 8.6 on an H100, and against a stand-in. Unverified: newer TensorRTs, and Jetsons.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError
from ..machine import gpu
from ..runners import Outputs, check_image
from . import cuda
from .family import TENSORRT, Family, family_named
from .identity import BUILD_AGAIN, check_identity, device_identity, read_identity
from .versions import import_tensorrt, listen, runtime_missing, version_of

# By name: trt.nptype of 8.5 asks numpy for np.bool, which numpy 1.24 took away (NVIDIA/TensorRT#2557).
_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
LEAN_RUNTIME = "VITRIM_LEAN_RUNTIME"


def configure(runtime: Any, dla_core: int | None) -> None:
    """No host code, and the DLA core that the engine was built for."""
    if hasattr(runtime, "engine_host_code_allowed"):  # from 8.6 on; False is the default, and what we mean
        runtime.engine_host_code_allowed = False
    if dla_core is not None:
        runtime.DLA_core = dla_core


def load_engine(trt: Any, family: Family, engine: Path, onnx: Path) -> tuple[Any, Any, Any]:
    """Check an engine's identity, then deserialize exactly the bytes that were checked.

    Returns:
        logger, runtimes and engine; the first two must outlive the third.

    Raises:
        InputError: not from here, see `check_identity`; or TensorRT refuses it.
        EnvironmentLackError: it was built by an older TensorRT, and that one's lean runtime is not named.
    """
    identity = check_identity(engine, onnx, device_identity(family))
    data = engine.read_bytes()
    if hashlib.sha256(data).hexdigest() != identity.engine_sha256:
        raise InputError(f"{engine} changed while it was read; {BUILD_AGAIN}")
    messages = listen(trt)
    runtime = trt.Runtime(messages)
    configure(runtime, identity.dla_core)
    runtimes = [runtime]
    if identity.tensorrt != trt.__version__:
        runtimes.append(_lean_runtime(runtime, engine, str(identity.tensorrt)))
        configure(runtimes[-1], identity.dla_core)
    loaded = runtimes[-1].deserialize_cuda_engine(data)
    if loaded is None:
        raise InputError(f"TensorRT {trt.__version__} cannot load {engine} ({messages.last()}); {BUILD_AGAIN}")
    return messages, runtimes, loaded


def _lean_runtime(runtime: Any, engine: Path, built: str) -> Any:
    """The lean runtime of the TensorRT that built an engine, from the library that the user names."""
    library = os.environ.get(LEAN_RUNTIME)
    if not library:
        raise EnvironmentLackError(
            f"{engine} was built by TensorRT {built}: name that one's lean runtime in {LEAN_RUNTIME} "
            f"(such as libnvinfer_lean.so.{version_of(built)[0]}), or {BUILD_AGAIN}"
        )
    lean = runtime.load_runtime(library)
    if lean is None:
        raise EnvironmentLackError(f"{library}, named in {LEAN_RUNTIME}, is no lean runtime of TensorRT {built}")
    return lean


def cannot_run(engine: Path) -> str | None:
    """Why no engine like this one runs on this machine; None where it may, which loading it tells.

    Raises:
        InputError: what lies beside it is missing or damaged.
    """
    identity = read_identity(engine)
    missing = runtime_missing(family_named(identity.family))
    return missing or identity.wrong_gpu(gpu.describe()["compute_capability"])


class TrtRunner:
    """A TensorRT engine, as a `Runner`.

    The engine's hash and identity are checked before it is deserialized, and host code in it is not allowed.

    Args:
        engine: as written by `build_engine`.
        onnx: the graph it was built from.
        cuda_graph: launch inference as one recorded CUDA graph.

    Raises:
        InputError: the engine is not from here, or not of one input and static shapes.
        EnvironmentLackError: no TensorRT, no GPU or no libcudart.
        UnsupportedError: CUDA or TensorRT refuses; a graph cannot be recorded.
    """

    def __init__(self, engine: str | os.PathLike[str], onnx: str | os.PathLike[str], cuda_graph: bool = False) -> None:
        family = family_named(read_identity(Path(engine)).family)
        missing = runtime_missing(family)
        if missing:
            raise EnvironmentLackError(missing)
        trt = import_tensorrt(family)
        self.conditions: dict[str, Any] = {"tensorrt": str(trt.__version__)}
        self.name = f"{'tensorrt' if family is TENSORRT else 'tensorrt-rtx'}-{trt.__version__}"
        self._messages, self._runtimes, self._engine = load_engine(trt, family, Path(engine), Path(onnx))
        self._context = self._engine.create_execution_context()
        self._cuda = cuda.Cuda(cuda.load())
        self._host: dict[str, np.ndarray] = {}
        self._address: dict[str, int] = {}
        try:
            self._bind(trt, os.fspath(engine))
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
            if kind not in _NUMPY:
                raise InputError(f"{where}: {name} is {kind}, which numpy lacks; inputs and outputs are float32")
            if any(size < 1 for size in shape):
                raise InputError(f"{where}: {name} is {kind} {list(shape)}; shapes must be static")
            self._host[name] = np.zeros(shape, _NUMPY[kind])
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
        check_image(self, image)
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
