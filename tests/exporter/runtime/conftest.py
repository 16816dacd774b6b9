"""Fixture `fake_trt`: a stand-in for tensorrt, for branches that depend on its version; it computes nothing of it.

An "engine" of it is the bytes of a .npy file with an input of that shape; running it doubles the input. Its flags are
those of each version, so that asking TensorRT 11 for FP16 fails, and polygraphy's own CreateConfig sets them.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import json
import sys
import types
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import pytest
from polygraphy.util import save_file

from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import cuda


class DataType(IntEnum):
    FLOAT, HALF, INT32, INT64 = range(4)


class Layer:
    """A layer of a parsed network."""

    def __init__(self, name: str, *outputs: DataType, kind: str = "MATRIX") -> None:
        self.name, self.type, self.precision = name, kind, None
        self.inputs: list[Any] = []
        self.outputs = [
            types.SimpleNamespace(dtype=dtype, name=f"{name}:{number}") for number, dtype in enumerate(outputs)
        ]
        self.output_types: dict[int, DataType] = {}

    num_outputs = property(lambda self: len(self.outputs))
    num_inputs = property(lambda self: len(self.inputs))
    precision_is_set = property(lambda self: self.precision is not None)

    def fed(self, *makers: Layer) -> Layer:
        """Takes the first outputs of these layers."""
        self.inputs = [maker.outputs[0] for maker in makers]
        return self

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def set_output_type(self, index: int, dtype: DataType) -> None:
        self.output_types[index] = dtype


class Network:
    """What the parser filled."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.layers = [
            Layer("/blocks.0/norm", DataType.FLOAT),
            Layer("/blocks.0/norm_1", DataType.FLOAT),
            Layer("/blocks.0/topk", DataType.FLOAT, DataType.INT32),
            Layer("/blocks.0/weight", DataType.FLOAT, kind="CONSTANT"),
        ]

    num_layers = property(lambda self: len(self.layers))
    num_inputs = 0

    def __iter__(self) -> Any:
        return iter(self.layers)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class Flag(IntEnum):
    """Builder flags that any version here has."""

    FP16, INT8, GPU_FALLBACK, TF32, OBEY_PRECISION_CONSTRAINTS, VERSION_COMPATIBLE, EXCLUDE_LEAN_RUNTIME, BF16 = range(
        8
    )


def flags_of(version: str) -> types.SimpleNamespace:
    """The builder flags of a version: 8.5 has none of portability, 8 no BF16, 11 none of precision."""
    major, minor = (int(part) for part in version.split(".")[:2])
    missing = {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"} if (major, minor) < (8, 6) else set()
    missing |= {"BF16"} if major < 9 else set()
    missing |= {"FP16", "INT8", "BF16", "OBEY_PRECISION_CONSTRAINTS"} if major >= 11 else set()
    return types.SimpleNamespace(**{flag.name: flag for flag in Flag if flag.name not in missing})


class Config:
    """A builder configuration that writes down what it is told."""

    def __init__(self) -> None:
        self.flags = {Flag.TF32.name}  # on by default
        self.limits: dict[Any, int] = {}
        self.loaded: bytes | None = None
        self.profiling_verbosity = self.hardware_compatibility_level = self.default_device_type = None
        self.DLA_core: int | None = None
        self.on_dla: Any = lambda layer: False
        self.num_compute_capabilities = 0
        self.capabilities: dict[int, str] = {}  # of TensorRT for RTX, as are the next

    def set_flag(self, flag: Flag) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Flag) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def set_compute_capability(self, capability: str, index: int) -> None:
        self.capabilities[index] = capability

    def add_optimization_profile(self, profile: Any) -> None:
        pass

    def create_timing_cache(self, data: bytes) -> bytes:
        return bytes(data)

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.loaded = cache

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802
        return bool(self.on_dla(layer))


def inspection(kind: str = "Float", era: str = "Format/Datatype", fused: bool = True) -> str:
    """What an inspector of TensorRT 10 would say of one product and one attention in that precision."""
    tensor = {"Name": "x", "Dimensions": [4, 40, 64], era: kind}
    mha = {"Name": "_gemm_mha_v2_myl0_2", "LayerType": "kgen", "TacticName": "_gemm_mha_v2_0x95"}
    alone = {
        "Name": "__myl_MaxSubExpSumDivMul_myl0_2",
        "LayerType": "kgen",
        "TacticName": "__myl_MaxSubExpSumDivMul_0x1",
    }
    product = {
        "Name": "/blocks.0/mlp/MatMul_myl0_1",
        "LayerType": "gemm",
        "TacticName": "sm80",
        "Metadata": "[ONNX Layer: /blocks.0/mlp/MatMul]",
    }
    layers = [{**layer, "Inputs": [tensor], "Outputs": [tensor]} for layer in (product, mha if fused else alone)]
    return json.dumps({"Layers": layers, "Bindings": ["image", "logits"]})


class Engine:
    """An engine with one input and one output."""

    num_io_tensors = 2

    def __init__(self, shape: tuple[int, ...], seen: types.SimpleNamespace) -> None:
        self.shape, self.seen = shape, seen

    def create_engine_inspector(self) -> Any:
        return types.SimpleNamespace(get_engine_information=lambda format: self.seen.inspection)

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def create_execution_context(self) -> Any:
        addresses: dict[str, int] = {}

        def at(name: str) -> np.ndarray:
            size = int(np.prod(self.shape))
            return np.ctypeslib.as_array((ctypes.c_float * size).from_address(addresses[name]))

        def run(stream: int) -> bool:
            def double() -> None:
                at("logits")[...] = 2 * at("image")

            self.seen.cuda.put(double)
            self.seen.enqueued += 1
            return bool(stream)

        return types.SimpleNamespace(set_tensor_address=addresses.__setitem__, execute_async_v3=run)


class Cuda:
    """libcudart: memory is the host's, and work is done at once, or kept while a stream is being captured."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.capturing: list[Any] | None = None
        self.captured: list[Any] = []
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}
        self.cudaGetErrorString = lambda status: b"operation not permitted when stream is capturing"
        self.cudaStreamCreate = self.cudaEventCreate = self._make
        self.cudaStreamDestroy = self.cudaStreamSynchronize = self.cudaEventDestroy = lambda made: 0
        self.cudaEventRecord = lambda event, stream: 0
        self.cudaEventElapsedTime = lambda elapsed, begin, end: 0

    def put(self, work: Any) -> None:
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def _make(self, made: Any) -> int:
        made._obj.value = 1
        return 0

    def _status(self, name: str) -> int:
        self.calls.append(name)
        return self.failing.get(name, 0)

    def cudaMalloc(self, made: Any, size: int) -> int:  # noqa: N802
        memory = ctypes.create_string_buffer(size)
        made._obj.value = ctypes.addressof(memory)
        self.memory[made._obj.value] = memory
        return 0

    def cudaFree(self, address: int) -> int:  # noqa: N802
        del self.memory[address]
        return 0

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> int:  # noqa: N802
        assert (to if kind == 1 else source) in self.memory
        ctypes.memmove(to, source, size)
        return 0

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> int:  # noqa: N802
        assert mode == 1
        self.capturing = []
        return self._status("begin")

    def cudaStreamEndCapture(self, stream: int, graph: Any) -> int:  # noqa: N802
        self.captured, self.capturing = self.capturing or [], None
        graph._obj.value = 7
        return self._status("end")

    def cudaGraphInstantiateWithFlags(self, executable: Any, graph: int, flags: int) -> int:  # noqa: N802
        assert (graph, flags) == (7, 0)
        executable._obj.value = 8
        return self._status("instantiate")

    def cudaGraphDestroy(self, graph: int) -> int:  # noqa: N802
        return self._status("destroy graph")

    def cudaGraphLaunch(self, executable: int, stream: int) -> int:  # noqa: N802
        assert executable == 8
        for work in self.captured:
            work()
        return self._status("launch")

    def cudaGraphExecDestroy(self, executable: int) -> int:  # noqa: N802
        return self._status("destroy")


def serialized(shape: tuple[int, ...]) -> bytes:
    """An "engine" for an input of that shape."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, np.float32))
    return stream.getvalue()


KERNEL = (
    "Name: /blocks.0/mlp/MatMul_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [4,40,64], Strides: "
    "[2560,64,1], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: "
    "y, Dimensions: [4,40,64], Strides: [2560,64,1], Datatype: Half, Format: (Linear) Row major linear format }],"
    " TacticName: sm80, StreamId: 0, Metadata: [ONNX Layer: /blocks.0/mlp/MatMul]"
)


def install(
    monkeypatch: pytest.MonkeyPatch, version: str, shape: tuple[int, ...] = (2, 3), name: str = "tensorrt"
) -> types.SimpleNamespace:
    """Put the stand-in in place of tensorrt (or, by `name`, of tensorrt_rtx) and of libcudart.

    Returns:
        what was seen: `network`, `config` (what was set), `runtimes`, `saved`; set `complaint` to refuse graphs,
        `failure` to fail builds, `inspection` for what the inspector says, `dla` cores, and `layers` of a network.
    """
    seen = types.SimpleNamespace(
        network=None,
        config=None,
        runtimes=[],
        complaint=None,
        failure=None,
        inspection=inspection(),
        dla=0,
        layers=None,
        on_dla=lambda layer: False,
        cuda=Cuda(),
        enqueued=0,
        lean=[],
        kernel=KERNEL,
    )
    module: Any = types.ModuleType(name)

    class Logger:
        Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        num_DLA_cores = property(lambda self: seen.dla)  # noqa: N815

        def create_network(self, flags: int) -> Network:
            seen.network = Network(flags)
            seen.network.layers = seen.layers or seen.network.layers
            return seen.network

        def create_builder_config(self) -> Config:
            seen.config = Config()
            seen.config.on_dla = seen.on_dla
            return seen.config

        def create_optimization_profile(self) -> object:
            return object()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            """As TensorRT for RTX does it: the list of kernels is in the log."""
            if seen.failure:
                self.logger.log(1, seen.failure)
                return None
            self.logger.log(4, f"Engine Layer Information:\n{seen.kernel}")
            return serialized(shape)

    class Parser:
        num_errors = property(lambda self: int(seen.complaint is not None))

        def __init__(self, network: Network, logger: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            return seen.complaint is None

        def get_error(self, index: int) -> Any:
            return types.SimpleNamespace(node=lambda: 7, desc=lambda: seen.complaint)

    class Runtime:
        engine_host_code_allowed = True  # not the real default: the runner must say False

        def __init__(self, logger: Any) -> None:
            seen.runtimes.append(self)

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            return Engine(np.load(io.BytesIO(data)).shape, seen) if data[:6] == b"\x93NUMPY" else None

        def load_runtime(self, path: str) -> Any:
            seen.lean.append(path)
            return Runtime(None) if path.endswith(".so.8") else None

    flags = {"EXPLICIT_BATCH": 0} | ({"STRONGLY_TYPED": 1} if not version.startswith("8.") else {})
    flags = {"STRONGLY_TYPED": 1} if name == "tensorrt_rtx" else flags
    module.__version__ = version
    module.ILogger, module.Builder, module.OnnxParser, module.Runtime = Logger, Builder, Parser, Runtime
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(**flags)
    module.BuilderFlag = flags_of(version)
    levels = {"NONE": 0, "AMPERE_PLUS": 1, "SAME_COMPUTE_CAPABILITY": 2}
    module.HardwareCompatibilityLevel = types.SimpleNamespace(**levels)
    module.LayerInformationFormat = types.SimpleNamespace(JSON="json")
    module.DeviceType = types.SimpleNamespace(DLA="dla")
    module.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    module.ProfilingVerbosity = types.SimpleNamespace(DETAILED="detailed")
    module.TensorIOMode = types.SimpleNamespace(INPUT="input")
    kinds = ["CONSTANT", "SHUFFLE", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "MATRIX_MULTIPLY", "CONVOLUTION", "SHAPE"]
    kinds += [] if version.startswith("8.5") else ["CAST"]
    module.LayerType = types.SimpleNamespace(**{kind: kind for kind in kinds})
    module.DataType, module.float32, module.float16 = DataType, DataType.FLOAT, DataType.HALF
    module.init_libnvinfer_plugins = lambda logger, namespace: True

    def build(parts: Any, config: Any, save_timing_cache: Any) -> bytes:
        builder, network, _ = parts
        done = config(builder, network)
        if seen.failure:
            builder.logger.log(1, seen.failure)
            raise RuntimeError("Invalid Engine")
        if save_timing_cache is not None:
            save_file((done.loaded or b"") + b"timed ", save_timing_cache)
        return serialized(shape)

    module.ComputeCapability = types.SimpleNamespace(SM80="80", SM86="86", SM120="120", CURRENT="here")
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.import_module("polygraphy.backend.trt.config"), "trt", module)
    monkeypatch.setattr(cuda, "load", lambda: seen.cuda)
    if name == "tensorrt":
        monkeypatch.setattr(gpu, "cuda_device", dict)  # a GPU of which nothing is known
    monkeypatch.setattr("polygraphy.backend.trt.engine_bytes_from_network", build)
    return seen


@pytest.fixture
def fake_trt(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """`install(version)` puts the stand-in in place; the other names are its own."""
    monkeypatch.setenv("VITRIM_CACHE", str(tmp_path_factory.mktemp("cache")))
    parts = {"DataType": DataType, "Engine": Engine, "Layer": Layer, "Cuda": Cuda, "load": cuda.load}
    parts |= {"inspection": inspection}
    return types.SimpleNamespace(install=partial(install, monkeypatch), **parts)
