"""The TensorRT that this machine has, 8.5 to 11, and how each version is told the precision. Torch-free.

TensorRT is imported when it is asked for, so this module imports everywhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError
from ..machine.jetpack import tensorrt_remedy

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Compatibility = Literal["ampere_plus", "same_compute_capability"]
DLA_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
OLDEST = (8, 5)
STRONGLY_TYPED_FROM = (10, 12)  # NVIDIA recommends it fully from here on; weak typing is deprecated
TYPED_ON_DEMAND_FROM = (10, 0)
VERSION_COMPATIBLE_FROM = (8, 6)
COMPATIBILITY_FROM: dict[Compatibility, tuple[int, int]] = {
    "ampere_plus": (8, 6),
    "same_compute_capability": (10, 9),
}
_AMPERE = (8, 0)
_BUILT_ON_NEWER_MAJOR = {(8, 9), (8, 10), (9, 10), (10, 11)}  # built with, run with: NVIDIA's engine compatibility page
_SYSTEM_ROOT = Path("/")


@dataclass(frozen=True)
class Typing:
    """How a network is told its precision.

    Attributes:
        strong: created STRONGLY_TYPED: the graph's own types are the engine's.
        fp16_flag: the builder may use fp16 where it likes, but for pinned layers (weak typing only).
        int8_flag: it may use int8 where the graph has Q/DQ pairs (weak typing only).
        why: in words, for a report.
    """

    strong: bool
    fp16_flag: bool
    int8_flag: bool
    why: str


_FLOAT32 = Typing(False, False, False, "weakly typed without precision flags: float32 throughout")


def typing_for(version: tuple[int, int], precision: Precision) -> Typing:
    """How a version of TensorRT is told the precision of a graph; by version, never by which flags happen to exist.

    - 10.12 and newer, and 11, which knows nothing else: strongly typed.
    - 10.0 to 10.11 (JetPack 6.1 and 6.2 have 10.3): a choice. A float32 graph is built weakly typed without any
      precision flag, the path that most have walked there. A graph with other types in it is built strongly typed:
      weakly typed, TensorRT would choose the precision layer by layer, which is how fp16 ViTs went wrong on 10.3
      (NVIDIA/TensorRT#4723).
    - 8.5 to 9: there is no strong typing. fp16 sets the flag FP16, int8 the flags INT8 and FP16; both obey the layers
      that are pinned to float32.

    Raises:
        InputError: there is no such precision.
        UnsupportedError: bf16 before 10, where nothing but a flag could ask for it.
    """
    if precision not in PRECISIONS:
        raise InputError(f"there is no engine precision {precision!r} (there are {', '.join(PRECISIONS)})")
    if version >= STRONGLY_TYPED_FROM:
        return Typing(True, False, False, "strongly typed: the graph's types are the engine's")
    if precision == "fp32":
        return _FLOAT32
    if version >= TYPED_ON_DEMAND_FROM:
        return Typing(True, False, False, f"strongly typed because the graph holds {precision}")
    if precision == "bf16":
        raise UnsupportedError(
            f"bf16 needs TensorRT 10, which can be told it by the graph's types, but here is {_dotted(version)}; "
            "export in fp16"
        )
    if precision == "fp16":
        return Typing(False, True, False, "weakly typed with the flag FP16; pinned layers stay float32")
    return Typing(False, True, True, "weakly typed with the flags INT8 and FP16; pinned layers stay float32")


def capability_of(text: str | None) -> tuple[int, int] | None:
    """Compute capability such as (8, 7) of `8.7`; None where it is unknown."""
    found = re.fullmatch(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else None


def refuse_options(
    version: tuple[int, int],
    capability: tuple[int, int] | None,
    precision: Precision,
    *,
    version_compatible: bool = False,
    hardware_compatible: Compatibility | None = None,
    dla_core: int | None = None,
    dla_cores: int = 0,
    jetson: bool = False,
) -> None:
    """Refuse, with the reason, what this TensorRT or GPU cannot do, before anything is built.

    Args:
        version: of TensorRT.
        capability: compute capability of the GPU; None where it is unknown, which refuses nothing.
        precision: of the graph.
        version_compatible, hardware_compatible, dla_core: as asked for, see `engine.build_engine`.
        dla_cores: how many the builder says there are.
        jetson: whether this is one.

    Raises:
        InputError: there is no such option value.
        UnsupportedError: the option is not to be had here.
    """
    here = _dotted(version)
    if precision == "bf16" and capability is not None and capability < _AMPERE:
        raise UnsupportedError(f"bf16 needs compute capability 8.0, but this GPU has {_dotted(capability)}; use fp16")
    if version_compatible and version < VERSION_COMPATIBLE_FROM:
        raise UnsupportedError(f"version-compatible engines came with TensorRT 8.6, but here is {here}")
    if hardware_compatible is not None:
        if hardware_compatible not in COMPATIBILITY_FROM:
            names = ", ".join(COMPATIBILITY_FROM)
            raise InputError(f"there is no hardware compatibility {hardware_compatible!r} (there are {names})")
        since = COMPATIBILITY_FROM[hardware_compatible]
        if version < since:
            raise UnsupportedError(f"{hardware_compatible} came with TensorRT {_dotted(since)}, but here is {here}")
        if jetson:
            raise UnsupportedError("hardware-compatible engines are not supported on a Jetson; build on each device")
        if hardware_compatible == "ampere_plus" and capability is not None and capability < _AMPERE:
            raise UnsupportedError(
                f"ampere_plus engines are built on compute capability 8.0 or newer, but this GPU has "
                f"{_dotted(capability)}"
            )
    if dla_core is None:
        return
    if precision not in DLA_PRECISIONS:
        raise UnsupportedError(f"a DLA computes in fp16 and int8 only, but the graph is {precision}")
    if not dla_cores:
        raise UnsupportedError(
            f"TensorRT {here} finds no DLA here: only Xavier and Orin modules have them (not the Orin Nano), "
            "and TensorRT supports them up to 10.7 and again from 11.4.1 on JetPack 7.2.2"
        )
    if not 0 <= dla_core < dla_cores:
        raise InputError(f"there is no DLA core {dla_core} here; there are {dla_cores}, counted from 0")


def runs_on(built: tuple[int, int], here: tuple[int, int]) -> bool:
    """Whether a version-compatible engine of one TensorRT runs on another: the same or newer, not over every major."""
    return here >= built and (here[0] == built[0] or (built[0], here[0]) in _BUILT_ON_NEWER_MAJOR)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a TensorRT version string.

    Raises:
        EnvironmentLackError: it cannot be read.
    """
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise EnvironmentLackError(f"TensorRT's version {text!r} cannot be read")
    return int(found[1]), int(found[2])


def import_tensorrt() -> Any:
    """The tensorrt module.

    Raises:
        EnvironmentLackError: it is missing or too old; says how to get it on this platform.
    """
    try:
        import tensorrt
    except Exception as error:  # libraries that do not load, and the registry's stub packages raise types of their own
        reason = " ".join(str(error).split())[:160]
        raise EnvironmentLackError(
            f"TensorRT cannot be imported ({reason}): {tensorrt_remedy(reason, _SYSTEM_ROOT)}"
        ) from error
    if not hasattr(tensorrt, "__version__"):
        raise EnvironmentLackError(
            f"the package tensorrt here is empty, its libraries are missing: {tensorrt_remedy('', _SYSTEM_ROOT)}"
        )
    version = version_of(tensorrt.__version__)
    if version < OLDEST:
        raise EnvironmentLackError(
            f"TensorRT {tensorrt.__version__} is too old: vitrim needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    return tensorrt


def why_not() -> str | None:
    """Why `engine` cannot build and run on this machine, in one line; None where it can."""
    try:
        import polygraphy.backend.trt  # noqa: F401
    except ImportError:
        return "polygraphy is not installed: pip install 'vitrim[device]'"
    return why_no_tensorrt()


def why_no_tensorrt() -> str | None:
    """Why TensorRT cannot build on this machine, in one line; None where it can. Asks for no polygraphy."""
    try:
        trt = import_tensorrt()
    except EnvironmentLackError as error:
        return str(error)
    return _builder_fails(trt)


@functools.lru_cache(maxsize=4)
def _builder_fails(trt: Any) -> str | None:
    """Why a builder cannot be made; asked once a module, because it loads CUDA."""
    messages = listen(trt)
    try:
        builder = trt.Builder(messages)
    except Exception as error:  # without a driver the binding raises types of its own
        reason = messages.last().partition(". Please")[0] or " ".join(str(error).split())[:160]
        return f"TensorRT {trt.__version__} finds no GPU ({reason}): check nvidia-smi, or tegrastats on a Jetson"
    return None if builder else f"TensorRT {trt.__version__} finds no GPU: check nvidia-smi"


@functools.cache
def _logger(trt: Any) -> Any:
    """The one logger of a process: TensorRT holds on to the first that it is given, so it must never go away."""

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger.Severity
            if severity in (levels.ERROR, levels.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            elif severity == levels.WARNING:
                self.warnings.append(" ".join(message.split()))

        def last(self) -> str:
            return next((said[-1][:240] for said in (self.errors, self.warnings) if said), "")

    return Messages()


def listen(trt: Any) -> Any:
    """TensorRT's logger, emptied: keeps what is said, with `last()`, instead of writing over the screen."""
    messages = _logger(trt)
    messages.errors.clear()
    messages.warnings.clear()
    return messages


def create_network(trt: Any, builder: Any, typing: Typing) -> Any:
    """An empty network, explicit batch and typed as `typing` says."""
    flags = trt.NetworkDefinitionCreationFlag
    wanted = 0
    if version_of(trt.__version__) < (10, 0):  # 10 knows no implicit batch
        wanted |= 1 << int(flags.EXPLICIT_BATCH)
    if typing.strong and hasattr(flags, "STRONGLY_TYPED"):  # once it is gone, it is the only way
        wanted |= 1 << int(flags.STRONGLY_TYPED)
    return builder.create_network(wanted)


def pin_float32(trt: Any, network: Any, nodes: Collection[str], may_miss: bool = False) -> int:
    """Make layers of a weakly typed network compute and answer in float32.

    Args:
        trt: the tensorrt module.
        network: parsed.
        nodes: names of ONNX nodes; the parser names their layers after them, with `_<number>` when there are several.
        may_miss: leave nodes out that the network does not have.

    Returns:
        how many layers were pinned.

    Raises:
        InputError: a node has no layer.
    """
    found: set[str] = set()
    pinned = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        name = layer.name if layer.name in nodes else re.sub(r"_\d+$", "", layer.name)
        if name not in nodes:
            continue
        found.add(name)
        outputs = [number for number in range(layer.num_outputs) if _is_float(trt, layer.get_output(number))]
        if not outputs or layer.type == trt.LayerType.CONSTANT:
            continue
        layer.precision = trt.float32
        for number in outputs:  # TopK's indices stay integers
            layer.set_output_type(number, trt.float32)
        pinned += 1
    missing = sorted(set(nodes) - found)
    if missing and not may_miss:
        raise InputError(f"the graph has no node {missing[0]} to keep in float32 (and {len(missing) - 1} more)")
    return pinned


def _is_float(trt: Any, tensor: Any) -> bool:
    return tensor is not None and tensor.dtype in (trt.float32, trt.float16)


def quantized_layers(trt: Any, network: Any) -> set[str]:
    """Names of the matrix multiplications and convolutions of a parsed network that take dequantized values.

    Those are what int8 was asked for. Transposes, reshapes and casts between are looked through.
    """
    kinds = trt.LayerType
    through = {getattr(kinds, name, None) for name in ("SHUFFLE", "CAST", "IDENTITY")} - {None}  # 8.5 has no CAST
    makers: dict[str, Any] = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for layer in layers:
        makers.update({layer.get_output(number).name: layer for number in range(layer.num_outputs)})

    def dequantized(tensor: Any) -> bool:
        maker = None if tensor is None else makers.get(tensor.name)
        while maker is not None and maker.type in through:
            maker = makers.get(maker.get_input(0).name)
        return maker is not None and maker.type == kinds.DEQUANTIZE

    return {
        layer.name
        for layer in layers
        if layer.type in (kinds.MATRIX_MULTIPLY, kinds.CONVOLUTION)
        and any(dequantized(layer.get_input(number)) for number in range(layer.num_inputs))
    }


def dla_cores(trt: Any) -> int:
    """How many DLA cores TensorRT sees on this machine.

    Raises:
        EnvironmentLackError: TensorRT finds no GPU.
    """
    lack = _builder_fails(trt)
    if lack:
        raise EnvironmentLackError(lack)
    return int(trt.Builder(listen(trt)).num_DLA_cores)
