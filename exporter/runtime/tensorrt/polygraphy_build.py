"""Engines built through polygraphy, where it is installed. Torch-free."""

from __future__ import annotations

import os
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import Any

from ...core.files import atomic_write
from ...core.inputs import InputKind, open_file
from .family import TENSORRT
from .serializer import Parts, Settings, compatibility_level
from .versions import builder_missing


class ByPolygraphy:
    """A `Serializer`."""

    family = TENSORRT

    def missing(self) -> str | None:
        """polygraphy, or what keeps TensorRT itself from building here."""
        try:
            import polygraphy.backend.trt  # noqa: F401
        except ImportError:
            return "polygraphy is not installed: pip install 'vitrim[device]'"
        return builder_missing()

    def __call__(self, trt: Any, parts: Parts, settings: Settings) -> bytes:
        """See `Serializer`."""
        from polygraphy.backend.trt import CreateConfig, PostprocessConfig, engine_bytes_from_network
        from polygraphy.logger import G_LOGGER

        cache = settings.timing_cache
        # Open files, no paths: polygraphy would leave a lock file beside each. Its log goes to standard output.
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL), ExitStack() as stack:
            known = (
                stack.enter_context(open_file(cache, InputKind.TIMINGS)) if cache and os.path.lexists(cache) else None
            )
            fresh = stack.enter_context(TemporaryFile()) if cache else None
            config = CreateConfig(
                fp16=settings.fp16,
                int8=settings.int8,
                precision_constraints="obey" if settings.obey_pins else None,
                memory_pool_limits={trt.MemoryPoolType.WORKSPACE: settings.workspace},
                profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
                version_compatible=settings.version_compatible or None,
                exclude_lean_runtime=settings.version_compatible or None,
                hardware_compatibility_level=compatibility_level(trt, settings.hardware_compatible),
                load_timing_cache=known,
            )
            config = PostprocessConfig(config, settings.change) if settings.change else config
            network = (parts.builder, parts.network, parts.parser)
            serialized = bytes(engine_bytes_from_network(network, config=config, save_timing_cache=fresh))
            if cache and fresh:
                fresh.seek(0)
                atomic_write(cache, fresh.read())
        return serialized


by_polygraphy = ByPolygraphy()
