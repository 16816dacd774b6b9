"""A stand-in for tensorrt in a process of its own, of the version that STANDIN_VERSION names; it computes for real.

A "graph" is JSON: `shape` of the image, `scale`, `swap`, `wait`. It gives `logits`, `scale` times each channel's mean,
and `kept_1`, the two channels with the greatest ones; `swap` exchanges the last kept one for the first that went. An
"engine" is the same JSON. What was asked of the builder is appended to the file STANDIN_LOG. Python 3.8 runs it.
"""

import ctypes
import json
import os
import time
from enum import Enum, IntEnum

import numpy as np

__version__ = os.environ["STANDIN_VERSION"]
_RTX = __name__ == "tensorrt_rtx"  # TensorRT for RTX counts its own versions
_MAJOR = 11 if _RTX else int(__version__.split(".")[0])
_WORK = ctypes.CFUNCTYPE(None)


def _cudart():
    return ctypes.CDLL(os.environ["STANDIN_CUDART"])


def _log(**seen):
    with open(os.environ["STANDIN_LOG"], "a") as stream:
        stream.write(json.dumps(seen) + "\n")


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ComputeCapability(IntEnum):  # of TensorRT for RTX
    SM80, SM86, SM89 = 80, 86, 89


class NetworkDefinitionCreationFlag(IntEnum):
    if not _RTX:
        EXPLICIT_BATCH = 0
    if _MAJOR >= 10:
        STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    TF32 = 7
    if _MAJOR < 11:  # as in the real one: 11 took them away
        FP16 = 0
        INT8 = 1
        OBEY_PRECISION_CONSTRAINTS = 10


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    DETAILED = 2


class HardwareCompatibilityLevel(IntEnum):
    NONE, AMPERE_PLUS = 0, 1


class TensorIOMode(IntEnum):
    INPUT, OUTPUT = 1, 2


class LayerType(IntEnum):
    CONSTANT = 1


class DataType(Enum):
    FLOAT, HALF, INT64, INT32 = range(4)


float32, float16 = DataType.FLOAT, DataType.HALF


def init_libnvinfer_plugins(logger, namespace):
    return True


class LayerInformationFormat(IntEnum):
    JSON = 1


_KERNEL = (
    "Name: /mlp/MatMul_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [4,40,64], Strides: [2560,64,1], "
    "Datatype: KIND, Format: (Linear) }], Constants: [], Outputs: [ { Name: y, Dimensions: [4,40,64], Strides: "
    "[2560,64,1], Datatype: KIND, Format: (Linear) }], TacticName: sm80, StreamId: 0, Metadata: [ONNX Layer: "
    "/mlp/MatMul]"
)


def _kind(graph):
    return graph.get("kind", "Float")


class _Timings:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return b"timings"


class _Config:
    def __init__(self):
        self.flags, self.pools, self.timings = {BuilderFlag.TF32}, {}, None
        self.num_compute_capabilities, self.capabilities = 0, {}

    def set_compute_capability(self, capability, index):
        assert _RTX
        assert index < self.num_compute_capabilities
        self.capabilities[index] = capability.name

    def create_timing_cache(self, data):
        return _Timings(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.timings = cache

    def get_timing_cache(self):
        return self.timings

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool.name] = size

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


class _Network:
    num_layers = 0

    def __init__(self, flags):
        self.flags, self.graph = flags, None


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        _log(
            graph=network.graph,
            network=[flag.name for flag in NetworkDefinitionCreationFlag if network.flags >> flag & 1],
            flags=sorted(flag.name for flag in config.flags),
            pools=config.pools,
            timings=None if config.timings is None else config.timings.data.decode(),
            capabilities=list(config.capabilities.values()),
        )
        if network.graph.get("fails"):
            self.logger.log(ILogger.Severity.ERROR, network.graph["fails"])
            return None
        if _RTX:  # what it makes is only in its log
            kernel = _KERNEL.replace("KIND", _kind(network.graph))
            self.logger.log(ILogger.Severity.VERBOSE, f"Engine Layer Information:\n{kernel}")
        return json.dumps(network.graph).encode()


class _Said:
    def __init__(self, text):
        self.text = text

    def node(self):
        return 7

    def desc(self):
        return self.text


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger):
        self.network = network

    def parse_from_file(self, path):
        with open(path) as stream:
            self.network.graph = json.load(stream)
        return not self.network.graph.get("refused")

    def get_error(self, index):
        return _Said(self.network.graph["refused"])


class Runtime:
    engine_host_code_allowed = True

    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, data):
        assert self.engine_host_code_allowed is False
        return _Engine(json.loads(data))


class _Engine:
    def __init__(self, graph):
        batch, channels = graph["shape"][:2]
        self.graph = graph
        self.tensors = {
            "image": (tuple(graph["shape"]), DataType.FLOAT),
            "logits": ((batch, channels), DataType.FLOAT),
            "kept_1": ((batch, 2), DataType.INT32 if _MAJOR < 10 else DataType.INT64),
        }
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_shape(self, name):
        return self.tensors[name][0]

    def get_tensor_dtype(self, name):
        return self.tensors[name][1]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        assert form is LayerInformationFormat.JSON
        tensor = {"Name": "x", "Dimensions": [4, 40, 64], "Format/Datatype": _kind(self.graph)}
        layer = {"Name": "/mlp/MatMul_myl0_1", "LayerType": "gemm", "TacticName": "sm80"}
        return json.dumps({"Layers": [dict(layer, Inputs=[tensor], Outputs=[tensor])], "Bindings": ["image"]})

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self.engine, self.address = engine, {}
        self.work = _WORK(self.compute)
        self.cudart = _cudart()

    def set_tensor_address(self, name, address):
        self.address[name] = address

    def _array(self, name):
        shape, kind = self.engine.tensors[name]
        dtype = {DataType.FLOAT: np.float32, DataType.INT32: np.int32, DataType.INT64: np.int64}[kind]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.address[name]), dtype).reshape(shape)

    def compute(self):
        graph = self.engine.graph
        time.sleep(graph.get("wait", 0))
        logits = np.float32(graph["scale"]) * self._array("image").mean(axis=(2, 3))
        order = np.argsort(-logits, axis=1)
        self._array("logits")[...] = logits
        self._array("kept_1")[...] = order[:, [0, 2]] if graph.get("swap") else order[:, :2]

    def execute_async_v3(self, stream):
        self.cudart.standin_enqueue(self.work)
        return bool(stream)
