"""TensorRT engines, 8.5 to 11: build, save, load after our own hash check, run. Torch-free.

TensorRT and polygraphy are imported when an engine is asked for, so this module imports everywhere. Precision is the
graph's: from 10.12 on networks are strongly typed (11 knows nothing else), before that no precision flag is set and
TF32 is off, so an engine of a float32 graph computes in float32.
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EnvironmentLackError, InputError, UnsupportedError
from ..files import atomic_path, atomic_write, sha256
from .runners import Outputs

STRONGLY_TYPED_FROM = (10, 12)
OLDEST = (8, 5)


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a TensorRT version string."""
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise EnvironmentLackError(f"TensorRT's version {text!r} cannot be read")
    return int(found[1]), int(found[2])


def import_tensorrt() -> Any:
    """The tensorrt module.

    Raises:
        EnvironmentLackError: it or polygraphy is missing or too old; says how to get it on this platform.
    """
    jetson = platform.machine() == "aarch64"
    how = "JetPack brings it: sudo apt install python3-libnvinfer" if jetson else "pip install 'vitrim[tensorrt]'"
    try:
        import polygraphy.backend.trt  # noqa: F401
    except ImportError as error:
        raise EnvironmentLackError("polygraphy is not installed: pip install 'vitrim[device]'") from error
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise EnvironmentLackError(f"TensorRT cannot be imported ({reason}): {how}") from error
    version = version_of(tensorrt.__version__)
    if version < OLDEST:
        raise EnvironmentLackError(
            f"TensorRT {tensorrt.__version__} is too old: vitrim needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    return tensorrt


def why_not() -> str | None:
    """Why no engine can be built on this machine, in one line; None where one can."""
    try:
        trt = import_tensorrt()
    except EnvironmentLackError as error:
        return str(error)
    try:
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    except Exception as error:  # without a driver the binding raises types of its own
        return f"TensorRT {trt.__version__} finds no GPU ({' '.join(str(error).split())[:120]}): check nvidia-smi"
    return None if builder else f"TensorRT {trt.__version__} finds no GPU: check nvidia-smi"


def is_strongly_typed(version: tuple[int, int]) -> bool:
    """Whether networks are created strongly typed: the graph's own types are the engine's."""
    return version >= STRONGLY_TYPED_FROM


def device_identity() -> dict[str, Any]:
    """What an engine is bound to: TensorRT's build, the GPU and its compute capability."""
    trt = import_tensorrt()
    import shutil
    import subprocess

    gpu = "unknown"
    tool = shutil.which("nvidia-smi")
    if tool:
        query = [tool, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        gpu = done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else gpu
    if gpu == "unknown" and Path("/proc/device-tree/model").is_file():
        gpu = Path("/proc/device-tree/model").read_text(errors="replace").strip("\x00\n ")
    return {"tensorrt": trt.__version__, "gpu": gpu, "machine": platform.machine()}


def sidecar(engine: Path) -> Path:
    """The file beside an engine that says what it is bound to."""
    return engine.with_name(engine.name + ".json")


def build_engine(
    onnx: str | os.PathLike[str],
    engine: str | os.PathLike[str],
    *,
    workspace_mib: int = 1024,
    timing_cache: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Build an engine from a graph with static shapes, and save it with its identity beside it.

    Args:
        onnx: the graph.
        engine: file to write; `<engine>.json` is written too.
        workspace_mib: scratch memory that the builder may use.
        timing_cache: file that is read if there and written after; use one a TensorRT build and GPU.

    Returns:
        the identity: hashes of engine and graph, TensorRT version, GPU.

    Raises:
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: TensorRT refuses the graph; its reason.
    """
    lack = why_not()
    if lack:
        raise EnvironmentLackError(lack)
    trt = import_tensorrt()
    from polygraphy.backend.trt import CreateConfig, engine_bytes_from_network, network_from_onnx_path
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    limits = {trt.MemoryPoolType.WORKSPACE: workspace_mib << 20}
    cache = os.fspath(timing_cache) if timing_cache else None
    config = CreateConfig(
        memory_pool_limits=limits,
        load_timing_cache=cache if cache and os.path.exists(cache) else None,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
    )
    try:
        with G_LOGGER.verbosity(G_LOGGER.ERROR):
            network = network_from_onnx_path(
                os.fspath(onnx), strongly_typed=is_strongly_typed(version_of(trt.__version__))
            )
            serialized = engine_bytes_from_network(network, config=config, save_timing_cache=cache)
    except PolygraphyException as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(
            f"TensorRT {trt.__version__} cannot build {os.fspath(onnx)}: {reason}; `vitrim inspect` lints the graph"
        ) from error
    path = Path(engine)
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(serialized))
    identity = {"engine_sha256": sha256(path), "onnx_sha256": sha256(onnx), **device_identity()}
    atomic_write(sidecar(path), json.dumps(identity, indent=2) + "\n")
    return identity


def check_identity(engine: Path, onnx: Path, here: dict[str, Any]) -> None:
    """Refuse an engine that was not built here from this graph; engines are native code.

    Raises:
        InputError: no identity, another hash, another TensorRT or GPU: says to build it anew.
    """
    again = "build it on this machine: vitrim build BUNDLE"
    try:
        identity = json.loads(sidecar(engine).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{engine} has no readable {sidecar(engine).name} beside it; {again}") from error
    if not isinstance(identity, dict) or identity.get("engine_sha256") != sha256(engine):
        raise InputError(f"{engine} is not the engine that was built (its hash differs); {again}")
    if identity.get("onnx_sha256") != sha256(onnx):
        raise InputError(f"{engine} was built from another graph than {onnx.name}; {again}")
    for key in ("tensorrt", "gpu", "machine"):
        if identity.get(key) != here.get(key):
            raise InputError(
                f"{engine} was built for {key} {identity.get(key)}, but here it is {here.get(key)}; {again}"
            )


class TrtRunner:
    """A TensorRT engine behind the runner interface.

    The engine's hash and identity are checked before it is deserialized, and host code in it is not allowed.

    Args:
        engine: as written by `build_engine`.
        onnx: the graph it was built from.

    Raises:
        InputError: the engine is not from here, see `check_identity`.
        EnvironmentLackError: no TensorRT or no GPU.
    """

    def __init__(self, engine: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> None:
        lack = why_not()
        if lack:
            raise EnvironmentLackError(lack)
        trt = import_tensorrt()
        from polygraphy.cuda import DeviceArray, Stream
        from polygraphy.datatype import DataType

        path = Path(engine)
        check_identity(path, Path(onnx), device_identity())
        self._logger = trt.Logger(trt.Logger.ERROR)
        runtime = trt.Runtime(self._logger)  # engine_host_code_allowed stays False
        self._runtime = runtime
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise InputError(f"TensorRT {trt.__version__} cannot load {path}: build it anew with vitrim build BUNDLE")
        self._context = self._engine.create_execution_context()
        self._stream = Stream()
        self._buffers: dict[str, Any] = {}
        self._host: dict[str, np.ndarray] = {}
        self.outputs: list[str] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            self._buffers[name] = DeviceArray(shape=shape, dtype=DataType.from_dtype(dtype))
            self._context.set_tensor_address(name, self._buffers[name].ptr)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self.input, self.shape, self._dtype = name, shape, dtype
            else:
                self.outputs.append(name)
                self._host[name] = np.empty(shape, dtype)
        self.batch = int(self.shape[0])
        self.name = f"tensorrt-{trt.__version__}"

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch, copies to and from the GPU included.

        Raises:
            InputError: the image has another shape.
        """
        if image.shape != self.shape:
            raise InputError(f"{self.name} takes {list(self.shape)}, but got {list(image.shape)}")
        self._buffers[self.input].copy_from(np.ascontiguousarray(image, dtype=self._dtype), self._stream)
        self.infer()
        for name in self.outputs:
            self._buffers[name].copy_to(self._host[name], self._stream)
        self._stream.synchronize()
        return {name: value.copy() for name, value in self._host.items()}

    def infer(self) -> None:
        """Run on what the input buffer holds and wait; for benchmarks without copies."""
        if not self._context.execute_async_v3(self._stream.ptr):
            raise InputError(f"{self.name}: the engine failed to run; see TensorRT's log above")
        self._stream.synchronize()
