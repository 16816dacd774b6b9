"""Engines of TensorRT for RTX, built on any machine: no GPU and no driver are needed. Torch-free.

The engine holds an intermediate form that is portable over GPUs and over Linux and Windows; a step on the device makes
it final when it is loaded. The builder logs every kernel that it makes, which is how an engine is looked into here.

Verified with the real builder 1.7, without a GPU. Unverified: that step, and a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.errors import InputError
from ...core.targets import Target
from .family import RTX, family_of
from .serializer import Parts, Serializer, Settings
from .versions import builder_missing


class ByRtx:
    """A `Serializer`."""

    family = RTX

    def missing(self) -> str | None:
        """What keeps TensorRT for RTX from building here."""
        return builder_missing(RTX)

    def __call__(self, trt: Any, parts: Parts, settings: Settings) -> bytes:
        """See `Serializer`."""
        config = parts.builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the list of kernels is empty without
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
        wanted = capabilities(trt, settings.capabilities)
        config.num_compute_capabilities = len(wanted)
        for index, capability in enumerate(wanted):
            config.set_compute_capability(capability, index)
        if settings.change is not None:
            settings.change(parts.builder, parts.network, config)
        serialized = parts.builder.build_serialized_network(parts.network, config)
        if serialized is None:
            raise RuntimeError("it gives no reason")  # what TensorRT logged is said in its place
        return bytes(serialized)


by_rtx = ByRtx()


def builder_for(target: Target, otherwise: Serializer) -> Serializer:
    """What builds a target's engines: TensorRT for RTX where the target is of it, else `otherwise`."""
    return by_rtx if family_of(target) is RTX else otherwise


def capabilities(trt: Any, names: Sequence[str]) -> list[Any]:
    """The builder's words for compute capabilities such as `8.6`.

    Raises:
        InputError: this builder knows no such capability.
    """
    known = {f"{name[2:-1]}.{name[-1]}": name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(sorted(known, key=float))
        raise InputError(f"{RTX.versioned(trt)} builds for {there}, but not for {unknown[0]!r}")
    return [getattr(trt.ComputeCapability, known[name]) for name in names]
