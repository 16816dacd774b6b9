"""TensorRT engines, 8.5 to 11: build, look into, save, load after our own hash check, run. Torch-free.

Precision is the graph's; how each version is told it stands in `trt.typing_for`, and what the engine then computes in
is read from it (`inspector`) before it is saved. An engine of a float32 graph computes in float32: TF32 is off.

Host code in an engine is never allowed. An engine that newer TensorRTs take ("version-compatible") normally carries
NVIDIA's lean runtime inside, which is host code; ours are built without it, so a newer TensorRT needs that library from
the machine itself: name it in $VITRIM_LEAN_RUNTIME.

Verified without a GPU: the branches by version, against a stand-in for TensorRT; the import, the API names and the
refusal for want of a GPU, with the real 8.6.0. Unverified: a build and a run on a GPU; the tests marked `gpu` do both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Literal

import numpy as np

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError, VitrimError
from ...core.files import atomic_path, atomic_write, sha256
from ..caches import cache_root, graph_hash, timing_cache_path
from ..machine import gpu
from ..machine.jetpack import read_l4t
from ..runners import Outputs
from . import cuda
from .inspector import Wanted, read_layers, summarize, untold
from .versions import (
    OLDEST,
    STRONGLY_TYPED_FROM,
    Compatibility,
    Precision,
    Typing,
    capability_of,
    create_network,
    import_tensorrt,
    listen,
    pin_float32,
    quantized_layers,
    refuse_options,
    runs_on,
    typing_for,
    version_of,
    why_no_tensorrt,
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
LEAN_RUNTIME = "VITRIM_LEAN_RUNTIME"
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
    timing_cache: str | os.PathLike[str] | Literal[False] | None = None,
    version_compatible: bool = False,
    hardware_compatible: Compatibility | None = None,
    dla_core: int | None = None,
    strict: bool = True,
    pins_may_miss: bool = False,
) -> dict[str, Any]:
    """Build an engine from a graph with static shapes, look what it computes in, and save it with its identity beside.

    Args:
        onnx: the graph.
        engine: file to write; `<engine>.json` is written too.
        precision: that the graph holds; see `trt.typing_for` for what each version makes of it.
        pinned: ONNX nodes that stay in float32 where typing is weak; elsewhere the graph's own casts say so.
        workspace_mib: scratch memory that the builder may use.
        timing_cache: folder of timing caches; None takes `timing` in the cache folder, False does without. A cache is
            one graph's on one TensorRT build, GPU and driver, so that a stale one is never read.
        version_compatible: newer TensorRTs may take the engine too (8.6 and newer; may run slower).
        hardware_compatible: other GPUs may take it too: `ampere_plus`, or `same_compute_capability`.
        dla_core: run on this DLA core what can run there, and the rest on the GPU.
        strict: refuse an engine whose layers do not run in the precision asked for; else that is only written down.
        pins_may_miss: `pinned` is another graph's list, of which this one may lack some.

    Returns:
        the identity: hashes of engine and graph, TensorRT version, GPU, how it was typed, options, and `layers`, which
        `inspector.summarize` makes; with a DLA `dla_fallback`, the layers that it does not take.

    Raises:
        EnvironmentLackError: no TensorRT or no GPU.
        InputError: the graph is missing, a pinned node is not in it, or an int8 graph has no Q/DQ pairs.
        UnsupportedError: TensorRT refuses the graph or an option, or layers run in another precision; its reason.
    """
    lack = why_not()
    if lack:
        raise EnvironmentLackError(lack)
    trt = import_tensorrt()
    source = sha256(onnx)  # before the build, and an error if the graph is not there
    version, device = version_of(trt.__version__), device_identity()
    typing, capability = typing_for(version, precision), capability_of(device["compute_capability"])
    messages = listen(trt)
    builder = trt.Builder(messages)
    refuse_options(
        version,
        capability,
        precision,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        dla_core=dla_core,
        dla_cores=0 if dla_core is None else int(builder.num_DLA_cores),
        jetson=read_l4t() is not None,
    )
    cache = None
    if timing_cache is not False:
        cache = timing_cache_path(Path(timing_cache or cache_root() / "timing"), device, graph_hash(onnx))
    fallback: list[str] = []
    try:
        network, parser = _parse(trt, builder, onnx, typing, messages)
        if typing.fp16_flag:
            pin_float32(trt, network, pinned, pins_may_miss)
        quantized = quantized_layers(trt, network) if precision == "int8" else set()
        if precision == "int8" and not quantized:
            raise InputError(f"{os.fspath(onnx)} is to be int8, but no matrix product in it takes Q/DQ pairs")
        options = {
            "fp16": typing.fp16_flag,
            "int8": typing.int8_flag,
            "precision_constraints": "obey" if typing.fp16_flag else None,
            "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: workspace_mib << 20},
            "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
            "version_compatible": version_compatible or None,
            "exclude_lean_runtime": version_compatible or None,  # it is host code, which we never load
            "hardware_compatibility_level": _level(trt, hardware_compatible),
        }
        take = None if dla_core is None else partial(_to_dla, trt, dla_core, fallback)
        serialized = _serialize((builder, network, parser), options, take, cache)
    except VitrimError:
        raise
    except Exception as error:  # TensorRT's binding and polygraphy raise types of their own
        reason = messages.last() or " ".join(str(error).split())[:240]
        raise UnsupportedError(
            f"TensorRT {trt.__version__} cannot build {os.fspath(onnx)}: {reason}; `vitrim inspect` lints the graph"
        ) from error
    wanted = Wanted(precision, frozenset(pinned), frozenset(quantized), typing.strong, version, capability)
    try:
        layers = _look_into(trt, serialized, dla_core, wanted)
    except InputError as error:
        if strict:
            raise
        layers = untold(str(error))
    if strict and not layers["passed"]:
        raise UnsupportedError(
            f"the engine of {os.fspath(onnx)} is not {precision}: {layers['verdict']}; it is not saved "
            "(--any-precision saves it all the same)"
        )
    path = Path(engine)
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialized)
    identity = {
        "engine_sha256": sha256(path),
        "onnx_sha256": source,
        **device,
        "precision": precision,
        "typing": typing.why,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "dla_core": dla_core,
        **({} if dla_core is None else {"dla_fallback": fallback}),
        "layers": layers,
    }
    atomic_write(sidecar(path), json.dumps(identity, indent=2) + "\n")
    return identity


def _parse(trt: Any, builder: Any, onnx: str | os.PathLike[str], typing: Typing, messages: Any) -> tuple[Any, Any]:
    """Network and parser of a graph; the parser must outlive the network."""
    network = create_network(trt, builder, typing)
    trt.init_libnvinfer_plugins(messages, "")
    parser = trt.OnnxParser(network, messages)
    if not parser.parse_from_file(os.fspath(onnx)):
        raise UnsupportedError(f"TensorRT {trt.__version__} refuses {os.fspath(onnx)}: {_parser_says(parser)}")
    return network, parser


def _serialize(parts: tuple[Any, ...], options: dict[str, Any], take: Any, cache: Path | None) -> bytes:
    """Build through polygraphy.

    Args:
        parts: builder, network and parser.
        options: of its CreateConfig.
        take: changes the finished configuration, or None.
        cache: timing cache to read, if it is there, and to write.
    """
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, engine_bytes_from_network
    from polygraphy.logger import G_LOGGER

    # Open files, no paths: polygraphy would leave a lock file beside each. Its log goes to standard output.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), ExitStack() as stack:
        known = stack.enter_context(open(cache, "rb")) if cache and cache.exists() else None
        fresh = stack.enter_context(TemporaryFile()) if cache else None
        config = CreateConfig(load_timing_cache=known, **options)
        config = PostprocessConfig(config, take) if take else config
        serialized = bytes(engine_bytes_from_network(parts, config=config, save_timing_cache=fresh))
        if cache and fresh:
            fresh.seek(0)
            atomic_write(cache, fresh.read())
    return serialized


def _to_dla(trt: Any, core: int, fallback: list[str], builder: Any, network: Any, config: Any) -> None:
    fallback.extend(use_dla(trt, network, config, core))


def _level(trt: Any, wanted: Compatibility | None) -> Any:
    return None if wanted is None else getattr(trt.HardwareCompatibilityLevel, wanted.upper())


def use_dla(trt: Any, network: Any, config: Any, core: int) -> list[str]:
    """Let a DLA core take what it can, and the GPU the rest.

    Args:
        trt: the tensorrt module.
        network: parsed.
        config: the builder's, which is changed.
        core: number of the core.

    Returns:
        names of the layers that it does not take, without constants.

    Raises:
        UnsupportedError: it takes none.
    """
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    working = [layer for layer in layers if layer.type != trt.LayerType.CONSTANT]
    fallback = [layer.name for layer in working if not config.can_run_on_DLA(layer)]
    if len(fallback) == len(working):
        raise UnsupportedError("none of the graph's layers runs on a DLA; build without --dla-core")
    return fallback


def _look_into(trt: Any, serialized: bytes, dla_core: int | None, wanted: Wanted) -> dict[str, Any]:
    """Load the engine that was just built and summarize what its layers compute in."""
    messages = listen(trt)
    runtime = trt.Runtime(messages)
    _configure(runtime, dla_core)
    loaded = runtime.deserialize_cuda_engine(serialized)
    if loaded is None:
        raise UnsupportedError(f"TensorRT {trt.__version__} cannot load what it built ({messages.last()})")
    text = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return summarize(read_layers(text), wanted)


def _configure(runtime: Any, dla_core: int | None) -> None:
    """No host code, and the DLA core that the engine was built for."""
    if hasattr(runtime, "engine_host_code_allowed"):  # from 8.6 on; False is the default, and what we mean
        runtime.engine_host_code_allowed = False
    if dla_core is not None:
        runtime.DLA_core = dla_core


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

    The driver may change: engines outlive its updates. A version-compatible engine may meet a newer TensorRT, and a
    hardware-compatible one another GPU of those it was built for.

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
        if identity.get(key) != here.get(key) and not _may_differ(key, identity, here):
            raise InputError(
                f"{engine} was built for {key} {identity.get(key)}, but here it is {here.get(key)}; {_AGAIN}"
            )
    return identity


def _may_differ(key: str, identity: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether an engine was built so that this part of the machine may be another."""
    if key == "tensorrt":
        built = str(identity.get(key))
        return bool(identity.get("version_compatible")) and runs_on(version_of(built), version_of(str(here.get(key))))
    capability = capability_of(here.get("compute_capability"))
    if key == "gpu":  # then the compute capability, which is looked at next, decides
        return identity.get("hardware_compatible") in ("ampere_plus", "same_compute_capability")
    if key == "compute_capability":
        return identity.get("hardware_compatible") == "ampere_plus" and (capability or (0, 0)) >= (8, 0)
    return False


def load_engine(trt: Any, engine: Path, onnx: Path) -> tuple[Any, Any, Any]:
    """Check an engine's identity, then deserialize exactly the bytes that were checked.

    Returns:
        logger, runtimes and engine; the first two must outlive the third.

    Raises:
        InputError: not from here, see `check_identity`; or TensorRT refuses it.
        EnvironmentLackError: it was built by an older TensorRT, and that one's lean runtime is not named.
    """
    identity = check_identity(engine, onnx, device_identity())
    data = engine.read_bytes()
    if hashlib.sha256(data).hexdigest() != identity["engine_sha256"]:
        raise InputError(f"{engine} changed while it was read; {_AGAIN}")
    messages = listen(trt)
    runtime = trt.Runtime(messages)
    _configure(runtime, identity.get("dla_core"))
    runtimes = [runtime]
    if identity["tensorrt"] != trt.__version__:
        runtimes.append(_lean_runtime(runtime, engine, identity["tensorrt"]))
        _configure(runtimes[-1], identity.get("dla_core"))
    loaded = runtimes[-1].deserialize_cuda_engine(data)
    if loaded is None:
        raise InputError(f"TensorRT {trt.__version__} cannot load {engine} ({messages.last()}); {_AGAIN}")
    return messages, runtimes, loaded


def _lean_runtime(runtime: Any, engine: Path, built: str) -> Any:
    """The lean runtime of the TensorRT that built an engine, from the library that the user names."""
    library = os.environ.get(LEAN_RUNTIME)
    if not library:
        raise EnvironmentLackError(
            f"{engine} was built by TensorRT {built}: name that one's lean runtime in {LEAN_RUNTIME} "
            f"(such as libnvinfer_lean.so.{version_of(built)[0]}), or {_AGAIN}"
        )
    lean = runtime.load_runtime(library)
    if lean is None:
        raise EnvironmentLackError(f"{library}, named in {LEAN_RUNTIME}, is no lean runtime of TensorRT {built}")
    return lean


class TrtRunner:
    """A TensorRT engine behind the runner interface.

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
        lack = why_no_tensorrt()
        if lack:
            raise EnvironmentLackError(lack)
        trt = import_tensorrt()
        self.name = f"tensorrt-{trt.__version__}"
        self._messages, self._runtimes, self._engine = load_engine(trt, Path(engine), Path(onnx))
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
