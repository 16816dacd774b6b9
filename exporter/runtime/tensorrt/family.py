"""TensorRT itself, and TensorRT for RTX, which has its API and builds without a GPU. Torch-free."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from typing import Any, Literal

from ...core.errors import InputError
from ...core.targets import Target

FamilyName = Literal["tensorrt", "rtx"]


@dataclass(frozen=True)
class Family:
    """What differs between the two.

    Attributes:
        name: as an engine's identity has it.
        module: what Python imports.
        title: for a person.
        oldest: major and minor version that vitrim needs.
        remedy: how to get it on a machine that has wheels of it.
        builds_anywhere: whether it builds without a GPU; then the builder's own list of kernels, and not a loaded
            engine, says what was built.
        like: the TensorRT whose rules of fusion its compiler follows; None: its own version's.
    """

    name: FamilyName
    module: str
    title: str
    oldest: tuple[int, int]
    remedy: str
    builds_anywhere: bool
    like: tuple[int, int] | None = None

    def import_module(self) -> Any:
        """The module.

        Raises:
            Exception: whatever its import raises: libraries that do not load have types of their own.
        """
        return importlib.import_module(self.module)

    def versioned(self, trt: Any) -> str:
        """Its title with a module's version."""
        return f"{self.title} {trt.__version__}"


TENSORRT = Family("tensorrt", "tensorrt", "TensorRT", (8, 5), "pip install 'vitrim[tensorrt]'", False)
RTX = Family("rtx", "tensorrt_rtx", "TensorRT for RTX", (1, 2), "pip install 'vitrim[rtx]'", True, (11, 0))
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # that TensorRT for RTX 1.7 builds for
_RTX_WHEELS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Windows", "AMD64")}
RTX_WHEELS = "NVIDIA has wheels for Linux on x86_64 and aarch64 and for Windows"
FAMILIES: dict[str, Family] = {family.name: family for family in (TENSORRT, RTX)}


def has_rtx_wheel(system: str | None = None, machine: str | None = None) -> bool:
    """Whether there are wheels of TensorRT for RTX for a system and processor, as `platform` names them; by default
    this machine's.
    """
    return (system or platform.system(), machine or platform.machine()) in _RTX_WHEELS


def rtx_runs_on(capability: str) -> bool:
    """Whether TensorRT for RTX runs on GPUs of a compute capability such as `8.6`: those that it builds for, and newer.

    It refuses engines on an H100 (9.0); the list is the one that it gave there, and says for others what it says.
    """
    return capability in CAPABILITIES or tuple(map(int, capability.split("."))) > (12, 0)


def family_of(target: Target) -> Family:
    """The TensorRT of a target; TensorRT itself for onnxruntime's, whose graphs `vitrim build` takes as well."""
    return RTX if target.rtx is not None else TENSORRT


def family_named(name: str) -> Family:
    """The family that an engine's identity names.

    Raises:
        InputError: there is none.
    """
    if name not in FAMILIES:
        raise InputError(f"there is no TensorRT family {name!r} (there are {', '.join(FAMILIES)})")
    return FAMILIES[name]
