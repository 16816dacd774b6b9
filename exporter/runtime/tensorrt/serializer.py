"""What turns a parsed network into an engine, and what it is given. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .family import Family
from .options import Compatibility


@dataclass(frozen=True)
class Parts:
    """What TensorRT needs for a build; the parser must outlive the network."""

    builder: Any
    network: Any
    parser: Any


@dataclass(frozen=True)
class Settings:
    """What the builder is set to; what is not named here keeps TensorRT's default, but TF32, which is off.

    Attributes:
        fp16, int8: the builder may use them where it likes (weak typing only).
        obey_pins: but not in layers that are pinned.
        workspace: scratch memory, bytes.
        version_compatible: newer TensorRTs may take the engine; without the lean runtime in it, which is host code.
        hardware_compatible: other GPUs may take it.
        capabilities: see `options.EngineOptions`.
        timing_cache: file to read, if it is there, and to write; None does without.
        change: (builder, network, config) -> None changes the finished configuration.
    """

    fp16: bool = False
    int8: bool = False
    obey_pins: bool = False
    workspace: int = 1 << 30
    version_compatible: bool = False
    hardware_compatible: Compatibility | None = None
    capabilities: tuple[str, ...] = ()
    timing_cache: Path | None = None
    change: Callable[[Any, Any, Any], None] | None = None


class Serializer(Protocol):
    """Builds an engine.

    Attributes:
        family: the TensorRT that it builds with.
    """

    family: Family

    def missing(self) -> str | None:
        """What keeps it from building on this machine, in one line; None where nothing does."""

    def __call__(self, trt: Any, parts: Parts, settings: Settings) -> bytes:
        """The engine.

        Raises:
            Exception: whatever TensorRT's binding raises; `engine.build_engine` says it in a line.
        """


def compatibility_level(trt: Any, wanted: Compatibility | None) -> Any:
    """TensorRT's word for a hardware compatibility; None for none."""
    return None if wanted is None else getattr(trt.HardwareCompatibilityLevel, wanted.upper())
