"""What an engine is bound to: the graph, TensorRT and GPU it was built from and for. Torch-free.

Engines are native code, so one that was not built here from this graph is never loaded. One of TensorRT for RTX may
come from another machine with its bundle: it is bound to the graph, the version and the GPUs that it was built for.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import InputError
from ...core.files import sha256
from ...core.records import Record, optional
from ..machine import gpu
from .family import RTX, TENSORRT, Family, FamilyName
from .inventory import Kernel
from .options import Compatibility
from .summary import LayerSummary
from .versions import capability_of, import_tensorrt, runs_on, version_of

_SAME_MACHINE = {"x86_64", "AMD64"}  # as Linux and Windows call it
BUILD_AGAIN = "build it on this machine: vitrim build BUNDLE"


@dataclass(frozen=True)
class EngineIdentity(Record):
    """What lies beside an engine as `<engine>.json`.

    Attributes:
        engine_sha256, onnx_sha256: of the engine, and of the graph it was built from.
        tensorrt, gpu, compute_capability, cuda, driver, machine: where it was built, see `device_identity`.
        precision: of the graph.
        family: `tensorrt`, or `rtx` for TensorRT for RTX, whose engines are not bound to a GPU.
        capabilities: compute capabilities that an engine of TensorRT for RTX is for; empty: 8.0 and newer.
        typing: how TensorRT was given it, in words.
        version_compatible, hardware_compatible, dla_core: see `options.EngineOptions`.
        dla_fallback: layers that the DLA does not take; None without a DLA.
        layers: what they compute in.
        kernels: each of them, in the order in which they run.
    """

    engine_sha256: str
    onnx_sha256: str
    tensorrt: str | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    cuda: str | None = None
    driver: str | None = None
    machine: str | None = None
    family: FamilyName = optional("tensorrt")
    capabilities: tuple[str, ...] | None = optional()
    precision: str | None = None
    typing: str | None = None
    version_compatible: bool = False
    hardware_compatible: Compatibility | None = None
    dla_core: int | None = None
    dla_fallback: tuple[str, ...] | None = optional()
    layers: LayerSummary | None = None
    kernels: tuple[Kernel, ...] | None = optional()

    def brief(self) -> EngineIdentity:
        """The identity without its list of kernels, for reports that name the engine."""
        return replace(self, kernels=None)

    def fits(self, key: str, here: str | None) -> bool:
        """Whether it may run where a part of the machine (`tensorrt`, `gpu`, ...) is `here`.

        The driver may change: engines outlive its updates. A version-compatible engine may meet a newer TensorRT, and a
        hardware-compatible one another GPU of those it was built for.
        """
        built = getattr(self, key)
        if self.family == RTX.name:
            return self._portable(key, built, here)
        if built == here:
            return True
        if key == "tensorrt":
            return self.version_compatible and runs_on(version_of(str(built)), version_of(str(here)))
        if key == "gpu":  # then the compute capability, which is looked at next, decides
            return self.hardware_compatible in ("ampere_plus", "same_compute_capability")
        if key == "compute_capability":
            return self.hardware_compatible == "ampere_plus" and (capability_of(here) or (0, 0)) >= (8, 0)
        return False

    def _portable(self, key: str, built: str | None, here: str | None) -> bool:
        """`fits` of TensorRT for RTX: bound to its version and to capabilities, but to no GPU and no system."""
        if key == "compute_capability":  # that of the GPU where it was built, if any, says nothing
            return here in self.capabilities if self.capabilities else (capability_of(here) or (0, 0)) >= (8, 0)
        return key == "gpu" or built == here or (key == "machine" and {built, here} == _SAME_MACHINE)

    @property
    def capability_words(self) -> str | None:
        """The compute capabilities that it is for, where it is not for one GPU, else that of the GPU."""
        if self.family != RTX.name:
            return self.compute_capability
        return ", ".join(self.capabilities) if self.capabilities else "8.0 and newer"

    def wrong_gpu(self, here: str | None) -> str | None:
        """Why an engine of TensorRT for RTX, which may be for other machines, is for no GPU like the one here.

        Args:
            here: its compute capability.
        """
        if self.family != RTX.name or self.fits("compute_capability", here):
            return None
        return f"it is for GPUs of compute capability {self.capability_words}, and here it is {here or 'unknown'}"


def device_identity(family: Family = TENSORRT) -> dict[str, str | None]:
    """What an engine is bound to (TensorRT's build, GPU, compute capability, machine), and the driver and CUDA here."""
    trt = import_tensorrt(family)
    return {"tensorrt": trt.__version__, **gpu.describe(), "machine": platform.machine()}


def sidecar(engine: Path) -> Path:
    """The file beside an engine that says what it is bound to."""
    return engine.with_name(engine.name + ".json")


def read_identity(engine: Path) -> EngineIdentity:
    """What lies beside an engine.

    Raises:
        InputError: there is none, or it cannot be read: says to build the engine anew.
    """
    place = sidecar(engine)
    try:
        return EngineIdentity.read(place, "engine's identity", "vitrim build BUNDLE")
    except InputError as error:
        raise InputError(f"{engine} has no readable {place.name} beside it; {BUILD_AGAIN} ({error})") from error


def check_identity(engine: Path, onnx: Path, here: Mapping[str, str | None]) -> EngineIdentity:
    """Refuse an engine that was not built here from this graph.

    Args:
        engine: with its identity beside it.
        onnx: the graph it must be of.
        here: `device_identity()`.

    Returns:
        the identity.

    Raises:
        InputError: no identity, another hash, another TensorRT or GPU: says to build it anew.
    """
    identity = read_identity(engine)
    if identity.engine_sha256 != sha256(engine):
        raise InputError(f"{engine} is not the engine that was built (its hash differs); {BUILD_AGAIN}")
    if identity.onnx_sha256 != sha256(onnx):
        raise InputError(f"{engine} was built from another graph than {onnx.name}; {BUILD_AGAIN}")
    for key in ("tensorrt", "gpu", "compute_capability", "machine"):
        if not identity.fits(key, here.get(key)):
            built = identity.capability_words if key == "compute_capability" else getattr(identity, key)
            raise InputError(f"{engine} was built for {key} {built}, but here it is {here.get(key)}; {BUILD_AGAIN}")
    return identity
