"""OpenVINO, as a `Runner`. Torch-free.

A graph's own types are kept: nothing is left to a hint that would round scores and so change decisions. In a graph
typed bfloat16, products run in it and what decides stays in float32; see `exporter.graph.precision.half`.
"""

from __future__ import annotations

import os
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.cores import session_threads
from ...core.errors import EnvironmentLackError, InputError, excerpt
from ...core.inputs import InputKind, require_file
from ..caches import cache_key, cache_root, graph_hash, private_folder
from ..runners import Outputs, check_image

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, has no Literal in all places
    from typing import Literal

    Hint = Literal["latency", "throughput"]

MISSING = "openvino is not installed: pip install 'vitrim[openvino]'"
_TYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}
# Of the CPU and the GPU; what a graph says is then what is computed. An NPU has one precision of its own.
AS_WRITTEN = {"INFERENCE_PRECISION_HINT": "dynamic"}


def import_openvino() -> Any:
    """The package.

    Raises:
        EnvironmentLackError: it is not installed, or does not load.
    """
    try:
        import openvino
    except ImportError as error:
        raise EnvironmentLackError(MISSING) from error
    return openvino


def the_core() -> Any:
    """OpenVINO's `Core`, the one of this process.

    Each one gives the thread another stack for signals, and gives back the one that it found. Of two that end in the
    order in which they were made, the second gives back the first one's stack, which is gone: the next signal that
    Python handles, such as that of a child's end, then ends the process. So there is one, and it stays.

    Raises:
        EnvironmentLackError: OpenVINO is not installed, or does not load.
    """
    return _core_of(import_openvino())


@cache
def _core_of(openvino: Any) -> Any:
    return openvino.Core()


def title() -> str:
    """OpenVINO with its version, for a person.

    Raises:
        EnvironmentLackError: it is not installed.
    """
    return f"OpenVINO {import_openvino().__version__.partition('-')[0]}"


def devices(core: Any) -> list[str]:
    """Devices that OpenVINO finds here, without their numbers, such as `CPU` and `GPU`."""
    return list(dict.fromkeys(str(name).partition(".")[0] for name in core.available_devices))


def capabilities(device: str = "CPU") -> frozenset[str]:
    """What OpenVINO says that a device is good at, such as `BF16`, `FP16` and `INT8`.

    Raises:
        EnvironmentLackError: OpenVINO or the device is missing.
    """
    core = the_core()
    require_device(core, device)
    return frozenset(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES")))


def require_device(core: Any, device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        EnvironmentLackError: with those that are.
    """
    found = devices(core)
    if device not in found:
        raise EnvironmentLackError(
            f"OpenVINO {import_openvino().__version__} finds no {device} here (only {', '.join(found)}): "
            "install the device's driver, see `vitrim doctor`"
        )


def absent(device: str) -> str | None:
    """Why OpenVINO does not run on a device here; None where it does."""
    try:
        require_device(the_core(), device)
    except EnvironmentLackError as error:
        return str(error)
    return None


def model_cache(core: Any, device: str, graph: str, root: Path | None = None) -> Path:
    """The folder of OpenVINO's compiled form of one graph: bound to OpenVINO, the device, its driver and the graph.

    Args:
        core: OpenVINO's.
        device: such as `CPU`.
        graph: see `caches.graph_hash`.
        root: the cache folder; None takes `caches.cache_root()`.

    Raises:
        InputError: others may write to the folder.
        EnvironmentLackError: it cannot be made.
    """
    own = core.get_versions(device)[device].build_number
    what = core.get_property(device, "FULL_DEVICE_NAME")
    known = core.get_property(device, "SUPPORTED_PROPERTIES")
    architecture = core.get_property(device, "DEVICE_ARCHITECTURE") if "DEVICE_ARCHITECTURE" in known else None
    key = cache_key(openvino=own, device=device, name=what, architecture=architecture, graph=graph)
    return private_folder((root or cache_root()) / "openvino" / key)


class OpenVinoRunner:
    """OpenVINO, as a `Runner`.

    Args:
        model: path or serialized ONNX.
        device: `CPU`, `GPU` or `NPU`; a missing one is an error and no silent fallback.
        threads: of the CPU; None takes all cores.
        hint: `latency` runs one image batch on all threads; `throughput` runs several side by side, see `rate`.
        name: shown in tables.
        cached: whether the compiled form is kept in the cache, and taken from there; for graphs that have a path.
        counted: whether OpenVINO counts what each of its layers takes, see `request.profiling_info`.

    Attributes:
        conditions: what a reader of a benchmark should know.

    Raises:
        InputError: the file is no ONNX model that OpenVINO takes, or its shapes are not static.
        EnvironmentLackError: OpenVINO or the device is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        device: str = "CPU",
        threads: int | None = None,
        hint: Hint = "latency",
        name: str | None = None,
        cached: bool = False,
        counted: bool = False,
    ) -> None:
        core = the_core()
        require_device(core, device)
        where = "the ONNX model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes):
            require_file(model, InputKind.GRAPH)
        config: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper(), **(AS_WRITTEN if device != "NPU" else {})}
        if counted:
            config["PERF_COUNT"] = True
        wanted = session_threads(threads) if device == "CPU" else 0
        if wanted:
            config["INFERENCE_NUM_THREADS"] = wanted
        if cached and not isinstance(model, bytes):
            config["CACHE_DIR"] = str(model_cache(core, device, graph_hash(model)))
        try:
            read = core.read_model(model if isinstance(model, bytes) else str(Path(model)))
            self.compiled = core.compile_model(read, device, config)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot load {where}: {reason_of(error)}") from error
        inputs = self.compiled.inputs
        if len(inputs) != 1 or inputs[0].partial_shape.is_dynamic or not inputs[0].partial_shape.rank.get_length():
            shapes = excerpt(", ".join(f"{one.any_name} {one.partial_shape}" for one in inputs), 200) or "none"
            raise InputError(f"{where}: needs one input of static shape, but has {shapes}")
        first = inputs[0]
        kind = first.element_type.get_type_name()
        if kind not in _TYPES:
            raise InputError(f"{where}: the input {first.any_name} is {kind}; images are {', '.join(_TYPES)}")
        self.dtype = np.dtype(_TYPES[kind])
        self.shape = tuple(int(size) for size in first.shape)
        self.batch = self.shape[0]
        self.outputs = [_own_name(one) for one in self.compiled.outputs]
        self.name = name or f"openvino-{device.lower()}"
        self.request = self.compiled.create_infer_request()
        self.conditions: dict[str, Any] = {"device": _conditions(core, self.compiled, device, hint)}

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch.

        Raises:
            InputError: the image has another shape or type, or the graph fails on it.
        """
        check_image(self, image)
        try:
            values = self.request.infer({0: image}, share_inputs=True)
        except RuntimeError as error:
            raise InputError(f"{self.name} fails to run the graph: {reason_of(error)}") from error
        return {name: np.array(values[index]) for index, name in enumerate(self.outputs)}

    def rate(self, image: np.ndarray, batches: int) -> None:
        """Run a batch many times over, as many side by side as the device takes at its best.

        Args:
            image: one batch.
            batches: how many.

        Raises:
            InputError: the image has another shape or type.
        """
        check_image(self, image)
        for _ in range(batches):
            self._queue.start_async({0: image})
        self._queue.wait_all()

    @cached_property
    def _queue(self) -> Any:
        """As many requests as the device takes side by side at its best."""
        return import_openvino().AsyncInferQueue(self.compiled)


def _own_name(output: Any) -> str:
    """The name that the ONNX graph gives an output: OpenVINO may know the value by several."""
    sink = output.node.friendly_name.partition("/sink_port")[0]
    return str(sink) if sink in output.names else str(output.any_name)


def _conditions(core: Any, compiled: Any, device: str, hint: str) -> dict[str, Any]:
    """What a reader of a benchmark should know."""
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    names = {
        "threads": "INFERENCE_NUM_THREADS",
        "streams": "NUM_STREAMS",
        "requests": "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    }
    return {
        "version": str(core.get_versions(device)[device].build_number),
        "device": str(core.get_property(device, "FULL_DEVICE_NAME")),
        "capabilities": sorted(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))),
        "hint": hint,
        **{key: int(compiled.get_property(name)) for key, name in names.items() if name in known},
    }


def reason_of(error: Exception) -> str:
    """What OpenVINO says, without the places in its sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return excerpt(" ".join(said) or str(error), 200)
