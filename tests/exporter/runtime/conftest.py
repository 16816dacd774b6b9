"""Fixture `fake_trt`: a stand-in for tensorrt, for branches that depend on its version; it computes nothing of it.

An "engine" of it is the bytes of a .npy file with an input of that shape; running it doubles the input.
"""

from __future__ import annotations

import io
import sys
import types
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import pytest


class DataType(IntEnum):
    FLOAT, HALF, INT32, INT64 = range(4)


class Layer:
    """A layer of a parsed network."""

    def __init__(self, name: str, *outputs: DataType, kind: str = "MATRIX") -> None:
        self.name, self.type, self.precision = name, kind, None
        self.outputs = [types.SimpleNamespace(dtype=dtype) for dtype in outputs]
        self.output_types: dict[int, DataType] = {}

    num_outputs = property(lambda self: len(self.outputs))

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

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class Engine:
    """An engine with one input and one output."""

    num_io_tensors = 2

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "image" else "output"

    def create_execution_context(self) -> Any:
        addresses: dict[str, Any] = {}

        def run(stream: int) -> bool:
            addresses["logits"][...] = 2 * addresses["image"]
            return bool(stream)

        return types.SimpleNamespace(set_tensor_address=addresses.__setitem__, execute_async_v3=run)


class DeviceArray:
    """GPU memory, as polygraphy wraps it."""

    alive = 0

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.ptr = np.zeros(shape, np.float32)
        DeviceArray.alive += 1

    def copy_from(self, host: np.ndarray, stream: Any) -> None:
        self.ptr[...] = host

    def copy_to(self, host: np.ndarray, stream: Any) -> None:
        host[...] = self.ptr

    def free(self) -> None:
        DeviceArray.alive -= 1


def serialized(shape: tuple[int, ...]) -> bytes:
    """An "engine" for an input of that shape."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, np.float32))
    return stream.getvalue()


def install(monkeypatch: pytest.MonkeyPatch, version: str, shape: tuple[int, ...] = (2, 3)) -> types.SimpleNamespace:
    """Put the stand-in in place of tensorrt, and of what polygraphy does with a GPU.

    Returns:
        what was seen: `network`, `config` (CreateConfig's arguments), `runtimes`; set `complaint` to refuse graphs,
        `failure` to fail builds.
    """
    seen = types.SimpleNamespace(network=None, config=None, runtimes=[], complaint=None, failure=None)
    module: Any = types.ModuleType("tensorrt")

    class Logger:
        Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            seen.network = Network(flags)
            return seen.network

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
            return Engine(np.load(io.BytesIO(data)).shape) if data[:6] == b"\x93NUMPY" else None

    flags = {"EXPLICIT_BATCH": 0} | ({"STRONGLY_TYPED": 1} if not version.startswith("8.") else {})
    module.__version__ = version
    module.ILogger, module.Builder, module.OnnxParser, module.Runtime = Logger, Builder, Parser, Runtime
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(**flags)
    # The misleading one: FP16 is there on every version, as a decision it is worth nothing.
    module.BuilderFlag = types.SimpleNamespace(FP16=0)
    module.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    module.ProfilingVerbosity = types.SimpleNamespace(DETAILED="detailed")
    module.TensorIOMode = types.SimpleNamespace(INPUT="input")
    module.LayerType = types.SimpleNamespace(CONSTANT="CONSTANT")
    module.DataType, module.float32, module.float16 = DataType, DataType.FLOAT, DataType.HALF
    module.init_libnvinfer_plugins = lambda logger, namespace: True

    def build(parts: Any, config: Any, save_timing_cache: str | None) -> bytes:
        if seen.failure:
            parts[0].logger.log(1, seen.failure)
            raise RuntimeError("Invalid Engine")
        return serialized(shape)

    def configure(**options: Any) -> str:
        seen.config = options
        return "config"

    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("polygraphy.backend.trt.CreateConfig", configure)
    monkeypatch.setattr("polygraphy.backend.trt.engine_bytes_from_network", build)
    monkeypatch.setattr("polygraphy.cuda.DeviceArray", DeviceArray)
    stream = types.SimpleNamespace(ptr=1, synchronize=lambda: None, free=lambda: None)
    monkeypatch.setattr("polygraphy.cuda.Stream", lambda: stream)
    return seen


@pytest.fixture
def fake_trt(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """`install(version)` puts the stand-in in place; `DataType`, `DeviceArray` and `Engine` are its own."""
    parts = {"DataType": DataType, "DeviceArray": DeviceArray, "Engine": Engine}
    return types.SimpleNamespace(install=partial(install, monkeypatch), **parts)
