"""The TensorRT that this machine has, 8.5 to 11 or for RTX, and how each takes the precision. Torch-free.

TensorRT is imported when it is asked for, so this module imports everywhere.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError, excerpt
from ...core.targets import PRECISIONS, Precision
from ..machine import gpu
from ..machine.jetpack import tensorrt_remedy
from .family import CAPABILITIES, RTX, RTX_WHEELS, TENSORRT, Family, has_rtx_wheel, rtx_runs_on
from .kernels import is_kernel

STRONGLY_TYPED_FROM = (10, 12)  # NVIDIA recommends it fully from here on; weak typing is deprecated
TYPED_ON_DEMAND_FROM = (10, 0)
_BUILT_ON_NEWER_MAJOR = {(8, 9), (8, 10), (9, 10), (10, 11)}  # built with, run with: NVIDIA's engine compatibility page
_SYSTEM_ROOT = Path("/")


@dataclass(frozen=True)
class Typing:
    """How a network takes its precision.

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


def typing_for(version: tuple[int, int], precision: Precision, family: Family = TENSORRT) -> Typing:
    """How a version of TensorRT takes the precision of a graph; by version, never by which flags happen to exist.

    - TensorRT for RTX, any version, counts its own versions and knows nothing but strong typing.
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
    if family is RTX or version >= STRONGLY_TYPED_FROM:
        return Typing(True, False, False, "strongly typed: the graph's types are the engine's")
    if precision == "fp32":
        return _FLOAT32
    if version >= TYPED_ON_DEMAND_FROM:
        return Typing(True, False, False, f"strongly typed because the graph holds {precision}")
    if precision == "bf16":
        raise UnsupportedError(
            f"bf16 needs TensorRT 10, which takes it from the graph's types, but here is {dotted(version)}; "
            "export in fp16"
        )
    if precision == "fp16":
        return Typing(False, True, False, "weakly typed with the flag FP16; pinned layers stay float32")
    return Typing(False, True, True, "weakly typed with the flags INT8 and FP16; pinned layers stay float32")


def capability_of(text: str | None) -> tuple[int, int] | None:
    """Compute capability such as (8, 7) of `8.7`; None where it is unknown."""
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text or "")
    return (int(found[1]), int(found[2])) if found else None


def runs_on(built: tuple[int, int], here: tuple[int, int]) -> bool:
    """Whether a version-compatible engine of one TensorRT runs on another: the same or newer, not over every major."""
    return here >= built and (here[0] == built[0] or (built[0], here[0]) in _BUILT_ON_NEWER_MAJOR)


def dotted(version: tuple[int, int]) -> str:
    """Such as 8.7 of (8, 7)."""
    return ".".join(map(str, version))


def version_of(text: str) -> tuple[int, int]:
    """Major and minor number of a TensorRT version string.

    Raises:
        EnvironmentLackError: it cannot be read.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?!\d)", text)
    if found is None:
        raise EnvironmentLackError(f"TensorRT's version {excerpt(repr(text))} cannot be read")
    return int(found[1]), int(found[2])


def import_tensorrt(family: Family = TENSORRT) -> Any:
    """The module of a TensorRT.

    Raises:
        EnvironmentLackError: it is missing or too old; says how to get it on this platform.
    """
    try:
        trt = family.import_module()
    except Exception as error:  # libraries that do not load, and the registry's stub packages raise types of their own
        reason = " ".join(str(error).split())[:160]
        raise EnvironmentLackError(
            f"{family.title} cannot be imported ({reason}): {remedy_for(family, reason)}"
        ) from error
    if not hasattr(trt, "__version__"):
        raise EnvironmentLackError(
            f"the package {family.module} here is empty, its libraries are missing: {remedy_for(family)}"
        )
    if version_of(trt.__version__) < family.oldest:
        raise EnvironmentLackError(f"{family.versioned(trt)} is too old: vitrim needs {dotted(family.oldest)} or newer")
    return trt


def remedy_for(family: Family, reason: str = "") -> str:
    """How to get a working TensorRT of a family on this machine.

    Args:
        family: which.
        reason: what the import said.
    """
    if family is TENSORRT:
        return tensorrt_remedy(reason, _SYSTEM_ROOT)
    return family.remedy if has_rtx_wheel() else f"{RTX_WHEELS}, but none for this machine; build on one of those"


def builder_missing(family: Family = TENSORRT) -> str | None:
    """What keeps a TensorRT from building on this machine, in one line; None where nothing does."""
    trt, missing = _imported(family)
    return missing or (None if family.builds_anywhere else _builder_fails(trt))


def runtime_missing(family: Family = TENSORRT) -> str | None:
    """What keeps a TensorRT from running engines on this machine, in one line; None where nothing does."""
    trt, missing = _imported(family)
    if missing:
        return missing
    # The driver is asked, not a builder: making one takes TensorRT 8.6 twelve seconds, and running has no need of it.
    device, title = gpu.cuda_device(), family.versioned(trt)
    if device is None and family.builds_anywhere:
        return f"{title} builds engines here, but running one needs a GPU, and there is none"
    if device is None:
        return f"{title} finds no GPU: check nvidia-smi, or tegrastats on a Jetson"
    capability = device.get("compute_capability")
    if family is RTX and capability and not rtx_runs_on(capability):
        return (
            f"{title} builds engines here, but runs none on this GPU of compute capability {capability} (it knows "
            f"{', '.join(CAPABILITIES)} and newer): build for TensorRT itself, see `vitrim targets`"
        )
    return None


def state_of_rtx() -> str:
    """What TensorRT for RTX can do on this machine, in one line; begins with its name where it can be imported."""
    trt, missing = _imported(RTX)
    if missing:
        return f"not usable: {missing}"
    return runtime_missing(RTX) or f"{RTX.versioned(trt)} builds engines here, and there is a GPU to run them"


def _imported(family: Family) -> tuple[Any, str | None]:
    """The module of a TensorRT, or why there is none."""
    try:
        return import_tensorrt(family), None
    except EnvironmentLackError as error:
        return None, str(error)


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
            self.kernels: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger.Severity
            if severity in (levels.ERROR, levels.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            elif severity == levels.WARNING:
                self.warnings.append(" ".join(message.split()))
            elif "LayerType: " in message:  # the list of kernels, among thousands of lines
                self.kernels += filter(is_kernel, message.splitlines())

        def last(self) -> str:
            return next((said[-1][:240] for said in (self.errors, self.warnings) if said), "")

    return Messages()


def listen(trt: Any) -> Any:
    """TensorRT's logger, emptied: keeps what is said (`last()`, `kernels`) instead of writing over the screen."""
    messages = _logger(trt)
    messages.errors.clear()
    messages.warnings.clear()
    messages.kernels.clear()
    return messages


def dla_cores(trt: Any) -> int:
    """How many DLA cores TensorRT sees on this machine.

    Raises:
        EnvironmentLackError: TensorRT finds no GPU.
    """
    reason = _builder_fails(trt)
    if reason:
        raise EnvironmentLackError(reason)
    return int(trt.Builder(listen(trt)).num_DLA_cores)
