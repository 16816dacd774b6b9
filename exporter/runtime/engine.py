"""TensorRT engines, 8.5 to 11: build, save, load after our own hash check, run. Torch-free.

Precision is the graph's; how each version is told it stands in `trt.typing_for`. An engine of a float32 graph computes
in float32: TF32 is switched off.

Verified without a GPU: the branches by version, against a stand-in for TensorRT; the import, the API names and the
refusal for want of a GPU, with the real 8.6.0. Unverified: a build and a run on a GPU; the test marked `gpu` does both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import EnvironmentLackError, InputError, UnsupportedError
from ..files import atomic_path, atomic_write, sha256
from . import gpu
from .runners import Outputs
from .trt import (
    OLDEST,
    STRONGLY_TYPED_FROM,
    Precision,
    create_network,
    import_tensorrt,
    is_strongly_typed,
    listen,
    pin_float32,
    typing_for,
    version_of,
    why_not,
)

__all__ = [
    "OLDEST",
    "STRONGLY_TYPED_FROM",
    "TrtRunner",
    "build_engine",
    "check_identity",
    "device_identity",
    "import_tensorrt",
    "is_strongly_typed",
    "load_engine",
    "sidecar",
    "version_of",
    "why_not",
]

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
_AGAIN = "build it on this machine: vitrim build BUNDLE"


def device_identity() -> dict[str, Any]:
    """What an engine is bound to (TensorRT's build, GPU, compute capability, machine), and the driver and CUDA here."""
    trt = import_tensorrt()
    return {"tensorrt": trt.__version__, **gpu.describe(), "machine": platform.machine()}


def sidecar(engine: Path) -> Path:
    """The file beside an engine that says what it is bound to."""
    return engine.with_name(engine.name + ".json")


def build_engine(
    onnx: str | os.PathLike[str],
    engine: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    pinned: Collection[str] = (),
    workspace_mib: int = 1024,
    timing_cache: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Build an engine from a graph with static shapes, and save it with its identity beside it.

    Args:
        onnx: the graph.
        engine: file to write; `<engine>.json` is written too.
        precision: `fp16` for a graph that holds fp16; see `trt.typing_for` for what each version makes of it.
        pinned: ONNX nodes that stay in float32 where typing is weak; elsewhere the graph's own casts say so.
        workspace_mib: scratch memory that the builder may use.
        timing_cache: file that is read if there and written after; use one a TensorRT build, GPU and driver.

    Returns:
        the identity: hashes of engine and graph, TensorRT version, GPU, how it was typed.

    Raises:
        EnvironmentLackError: no TensorRT or no GPU.
        InputError: the graph is missing, or a pinned node is not in it.
        UnsupportedError: TensorRT refuses the graph; its reason.
    """
    lack = why_not()
    if lack:
        raise EnvironmentLackError(lack)
    trt = import_tensorrt()
    from polygraphy.backend.trt import CreateConfig, engine_bytes_from_network
    from polygraphy.logger import G_LOGGER

    source = sha256(onnx)  # before the build, and an error if the graph is not there
    typing = typing_for(version_of(trt.__version__), precision)
    messages = listen(trt)
    cache = os.fspath(timing_cache) if timing_cache else None
    try:
        builder = trt.Builder(messages)
        network = create_network(trt, builder, typing)
        trt.init_libnvinfer_plugins(messages, "")
        parser = trt.OnnxParser(network, messages)
        if not parser.parse_from_file(os.fspath(onnx)):
            raise UnsupportedError(f"TensorRT {trt.__version__} refuses {os.fspath(onnx)}: {_parser_says(parser)}")
        if typing.fp16_flag:
            pin_float32(trt, network, pinned)
        config = CreateConfig(
            fp16=typing.fp16_flag,
            precision_constraints="obey" if typing.fp16_flag else None,
            memory_pool_limits={trt.MemoryPoolType.WORKSPACE: workspace_mib << 20},
            load_timing_cache=cache if cache and os.path.exists(cache) else None,
            profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        )
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            serialized = engine_bytes_from_network((builder, network, parser), config=config, save_timing_cache=cache)
    except (InputError, UnsupportedError):
        raise
    except Exception as error:  # TensorRT's binding and polygraphy raise types of their own
        reason = messages.last() or " ".join(str(error).split())[:240]
        raise UnsupportedError(
            f"TensorRT {trt.__version__} cannot build {os.fspath(onnx)}: {reason}; `vitrim inspect` lints the graph"
        ) from error
    path = Path(engine)
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(serialized))
    identity = {"engine_sha256": sha256(path), "onnx_sha256": source, **device_identity(), "typing": typing.why}
    atomic_write(sidecar(path), json.dumps(identity, indent=2) + "\n")
    return identity


def _parser_says(parser: Any) -> str:
    """The parser's first complaint, with the node where the version tells it."""
    if not parser.num_errors:
        return "the file cannot be read as an ONNX graph"
    error = parser.get_error(0)
    where = f"node {error.node()}"
    with contextlib.suppress(Exception):  # names came with 10
        where = f"{error.node_operator()} {error.node_name()}".strip() or where
    return f"{where}: {' '.join(str(error.desc()).split())[:200]}; `vitrim inspect` lints the graph"


def check_identity(engine: Path, onnx: Path, here: dict[str, Any]) -> dict[str, Any]:
    """Refuse an engine that was not built here from this graph; engines are native code.

    The driver may change: engines outlive its updates.

    Returns:
        the identity.

    Raises:
        InputError: no identity, another hash, another TensorRT or GPU: says to build it anew.
    """
    try:
        identity = json.loads(sidecar(engine).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{engine} has no readable {sidecar(engine).name} beside it; {_AGAIN}") from error
    if not isinstance(identity, dict) or identity.get("engine_sha256") != sha256(engine):
        raise InputError(f"{engine} is not the engine that was built (its hash differs); {_AGAIN}")
    if identity.get("onnx_sha256") != sha256(onnx):
        raise InputError(f"{engine} was built from another graph than {onnx.name}; {_AGAIN}")
    for key in ("tensorrt", "gpu", "compute_capability", "machine"):
        if identity.get(key) != here.get(key):
            raise InputError(
                f"{engine} was built for {key} {identity.get(key)}, but here it is {here.get(key)}; {_AGAIN}"
            )
    return identity


def load_engine(trt: Any, engine: Path, onnx: Path) -> tuple[Any, Any, Any]:
    """Check an engine's identity, then deserialize exactly the bytes that were checked.

    Returns:
        logger, runtime and engine; the first two must outlive the third.

    Raises:
        InputError: not from here, see `check_identity`; or TensorRT refuses it.
    """
    identity = check_identity(engine, onnx, device_identity())
    data = engine.read_bytes()
    if hashlib.sha256(data).hexdigest() != identity["engine_sha256"]:
        raise InputError(f"{engine} changed while it was read; {_AGAIN}")
    messages = listen(trt)
    runtime = trt.Runtime(messages)
    if hasattr(runtime, "engine_host_code_allowed"):  # from 8.6 on; False is the default, and what we mean
        runtime.engine_host_code_allowed = False
    loaded = runtime.deserialize_cuda_engine(data)
    if loaded is None:
        raise InputError(f"TensorRT {trt.__version__} cannot load {engine} ({messages.last()}); {_AGAIN}")
    return messages, runtime, loaded


class TrtRunner:
    """A TensorRT engine behind the runner interface.

    The engine's hash and identity are checked before it is deserialized, and host code in it is not allowed.

    Args:
        engine: as written by `build_engine`.
        onnx: the graph it was built from.

    Raises:
        InputError: the engine is not from here, or not of one input and static shapes.
        EnvironmentLackError: no TensorRT or no GPU.
    """

    def __init__(self, engine: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> None:
        lack = why_not()
        if lack:
            raise EnvironmentLackError(lack)
        trt = import_tensorrt()
        from polygraphy.cuda import DeviceArray, Stream
        from polygraphy.datatype import DataType

        self._buffers: dict[str, Any] = {}
        self._host: dict[str, np.ndarray] = {}
        self._stream: Any = None
        self.name = f"tensorrt-{trt.__version__}"
        self._messages, self._runtime, self._engine = load_engine(trt, Path(engine), Path(onnx))
        self._context = self._engine.create_execution_context()
        self._stream = Stream()
        inputs: list[str] = []
        self.outputs: list[str] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
            kind = self._engine.get_tensor_dtype(name).name
            if kind not in _NUMPY or any(size < 1 for size in shape):
                raise InputError(f"{os.fspath(engine)}: {name} is {kind} {list(shape)}; shapes must be static")
            self._host[name] = np.empty(shape, _NUMPY[kind])
            self._buffers[name] = DeviceArray(shape=shape, dtype=DataType.from_dtype(self._host[name].dtype))
            self._context.set_tensor_address(name, self._buffers[name].ptr)
            is_input = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else self.outputs).append(name)
        if len(inputs) != 1:
            raise InputError(f"{os.fspath(engine)} has the inputs {inputs}; it needs one")
        self.input = inputs[0]
        self.shape, self.dtype = self._host[self.input].shape, self._host[self.input].dtype
        self.batch = int(self.shape[0])

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch, copies to and from the GPU included.

        Raises:
            InputError: the image has another shape or type.
        """
        if image.shape != self.shape or image.dtype != self.dtype:
            wanted = f"{self.dtype} {list(self.shape)}"
            raise InputError(f"{self.name} takes {wanted}, but got {image.dtype} {list(image.shape)}")
        np.copyto(self._host[self.input], image)  # our own memory: it must live until the copy is through
        self._buffers[self.input].copy_from(self._host[self.input], self._stream)
        self.infer()
        for name in self.outputs:
            self._buffers[name].copy_to(self._host[name], self._stream)
        self._stream.synchronize()
        return {name: self._host[name].copy() for name in self.outputs}

    def infer(self) -> None:
        """Run on what the input buffer holds and wait; for benchmarks without copies."""
        if not self._context.execute_async_v3(self._stream.ptr):
            raise UnsupportedError(
                f"{self.name}: the engine failed to run ({self._messages.last() or 'no reason given'})"
            )
        self._stream.synchronize()

    def close(self) -> None:
        """Give the GPU's memory back; the runner cannot be used after."""
        self._context = self._engine = self._runtime = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        if self._stream is not None:
            self._stream.free()
            self._stream = None

    def __enter__(self) -> TrtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
