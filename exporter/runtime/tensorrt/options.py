"""How an engine is built, and what of it a TensorRT or a GPU cannot do. Torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from ...core.bounds import require_within
from ...core.errors import InputError, UnsupportedError, excerpt
from ...core.targets import Precision
from .family import CAPABILITIES, RTX, TENSORRT, Family
from .versions import dotted

Compatibility = Literal["ampere_plus", "same_compute_capability"]
DLA_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
VERSION_COMPATIBLE_FROM = (8, 6)
COMPATIBILITY_FROM: dict[Compatibility, tuple[int, int]] = {
    "ampere_plus": (8, 6),
    "same_compute_capability": (10, 9),
}
WORKSPACE_MIB, DLA_CORES = (16, 1 << 20), (0, 15)  # what may be given
_AMPERE = (8, 0)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        workspace_mib: scratch memory that the builder may use.
        timing_cache: folder of timing caches; None takes `timing` in the cache folder, False does without. A cache is
            one graph's on one TensorRT build, GPU and driver, so that a stale one is never read.
        version_compatible: newer TensorRTs may take the engine too (8.6 and newer; may run slower).
        hardware_compatible: other GPUs may take it too: `ampere_plus`, or `same_compute_capability`.
        capabilities: compute capabilities that an engine of TensorRT for RTX is for, such as `8.6`; empty: 8.0 and
            newer, its default. An engine of TensorRT itself is for the GPU that it was built on.
        dla_core: run on this DLA core what can run there, and the rest on the GPU.
        strict: refuse an engine whose layers do not run in the precision asked for; else that is only written down.

    Raises:
        InputError: a number is out of bounds, or there is no such compute capability.
    """

    workspace_mib: int = 1024
    timing_cache: str | os.PathLike[str] | Literal[False] | None = None
    version_compatible: bool = False
    hardware_compatible: Compatibility | None = None
    capabilities: tuple[str, ...] = ()
    dla_core: int | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        require_within("workspace_mib", self.workspace_mib, *WORKSPACE_MIB)
        if self.dla_core is not None:
            require_within("dla_core", self.dla_core, *DLA_CORES)
        unknown = [name for name in self.capabilities if name not in CAPABILITIES]
        if unknown:
            raise InputError(
                f"{RTX.title} has no compute capability {excerpt(unknown[0])!r} (it has {', '.join(CAPABILITIES)})"
            )
        if len(set(self.capabilities)) < len(self.capabilities):
            raise InputError(f"a compute capability is named twice: {', '.join(self.capabilities)}")


def refuse_options(
    options: EngineOptions,
    precision: Precision,
    version: tuple[int, int],
    capability: tuple[int, int] | None,
    *,
    family: Family = TENSORRT,
    dla_cores: int = 0,
    jetson: bool = False,
) -> None:
    """Refuse, with the reason, what this TensorRT or GPU cannot do, before anything is built.

    Args:
        options: as asked for.
        precision: of the graph.
        version: of TensorRT.
        capability: compute capability of the GPU; None where it is unknown, which refuses nothing.
        family: whose builder it is.
        dla_cores: how many the builder says there are.
        jetson: whether this is one.

    Raises:
        InputError: there is no such option value.
        UnsupportedError: the option is not to be had here.
    """
    if family is RTX:
        _refuse_for_rtx(options)
        return
    if options.capabilities:
        raise UnsupportedError(f"compute capabilities are {RTX.title}'s; an engine of TensorRT is for the GPU here")
    if precision == "bf16" and capability is not None and capability < _AMPERE:
        raise UnsupportedError(f"bf16 needs compute capability 8.0, but this GPU has {dotted(capability)}; use fp16")
    if options.version_compatible and version < VERSION_COMPATIBLE_FROM:
        raise UnsupportedError(f"version-compatible engines came with TensorRT 8.6, but here is {dotted(version)}")
    _refuse_hardware(options.hardware_compatible, version, capability, jetson)
    _refuse_dla(options.dla_core, precision, version, dla_cores)


def _refuse_for_rtx(options: EngineOptions) -> None:
    """What TensorRT for RTX has no need of, or not at all."""
    asked = {
        "timing cache": bool(options.timing_cache),  # it would ask for a GPU
        "version-compatible engines": options.version_compatible,
        "hardware compatibility (name compute capabilities)": options.hardware_compatible is not None,
        "DLA cores": options.dla_core is not None,
    }
    wanted = [name for name, given in asked.items() if given]
    if wanted:
        raise UnsupportedError(f"{RTX.title} knows no {wanted[0]}; its engines run on all GPUs from Ampere on")


def _refuse_hardware(
    wanted: Compatibility | None, version: tuple[int, int], capability: tuple[int, int] | None, jetson: bool
) -> None:
    if wanted is None:
        return
    if wanted not in COMPATIBILITY_FROM:
        names = ", ".join(COMPATIBILITY_FROM)
        raise InputError(f"there is no hardware compatibility {wanted!r} (there are {names})")
    since = COMPATIBILITY_FROM[wanted]
    if version < since:
        raise UnsupportedError(f"{wanted} came with TensorRT {dotted(since)}, but here is {dotted(version)}")
    if jetson:
        raise UnsupportedError("hardware-compatible engines are not supported on a Jetson; build on each device")
    if wanted == "ampere_plus" and capability is not None and capability < _AMPERE:
        raise UnsupportedError(
            f"ampere_plus engines are built on compute capability 8.0 or newer, but this GPU has {dotted(capability)}"
        )


def _refuse_dla(core: int | None, precision: Precision, version: tuple[int, int], cores: int) -> None:
    if core is None:
        return
    if precision not in DLA_PRECISIONS:
        raise UnsupportedError(f"a DLA computes in fp16 and int8 only, but the graph is {precision}")
    if not cores:
        raise UnsupportedError(
            f"TensorRT {dotted(version)} finds no DLA here: only Xavier and Orin modules have them (not the Orin "
            "Nano), and TensorRT supports them up to 10.7 and again from 11.4.1 on JetPack 7.2.2"
        )
    if not 0 <= core < cores:
        raise InputError(f"there is no DLA core {core} here; there are {cores}, counted from 0")
