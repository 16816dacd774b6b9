"""Engines built with nothing but tensorrt. Torch-free.

This is what run_on_device.py builds with, also on the Python 3.8 and TensorRT 8.5 of JetPack 5.

Verified with TensorRT 8.6 on an H100, and against a stand-in; unverified on a Jetson.
"""

from __future__ import annotations

import os
from typing import Any

from ...core.files import atomic_write
from ...core.inputs import InputKind, read_bytes
from .family import TENSORRT
from .serializer import Parts, Settings, compatibility_level
from .versions import builder_missing


class ByTensorRT:
    """A `Serializer`."""

    family = TENSORRT

    def missing(self) -> str | None:
        """What keeps TensorRT itself from building here."""
        return builder_missing()

    def __call__(self, trt: Any, parts: Parts, settings: Settings) -> bytes:
        """See `Serializer`."""
        config, cache = parts.builder.create_builder_config(), settings.timing_cache
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
        for name, wanted in (
            ("FP16", settings.fp16),
            ("INT8", settings.int8),
            ("OBEY_PRECISION_CONSTRAINTS", settings.obey_pins),
            ("VERSION_COMPATIBLE", settings.version_compatible),
            ("EXCLUDE_LEAN_RUNTIME", settings.version_compatible),
        ):
            if wanted:
                config.set_flag(getattr(trt.BuilderFlag, name))
        if settings.hardware_compatible is not None:
            config.hardware_compatibility_level = compatibility_level(trt, settings.hardware_compatible)
        known = read_bytes(cache, InputKind.TIMINGS) if cache and os.path.lexists(cache) else b""
        timings = config.create_timing_cache(known) if cache else None
        if timings is not None:
            config.set_timing_cache(timings, ignore_mismatch=False)
        if settings.change:
            settings.change(parts.builder, parts.network, config)
        serialized = parts.builder.build_serialized_network(parts.network, config)
        if serialized is None:
            raise RuntimeError("it gives no reason")  # what TensorRT logged is said in its place
        if cache and timings is not None:
            atomic_write(cache, bytes(config.get_timing_cache().serialize()))
        return bytes(serialized)


by_tensorrt = ByTensorRT()
