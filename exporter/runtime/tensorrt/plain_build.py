"""Engines built with nothing but tensorrt: what `engine` else takes from polygraphy. Torch-free.

This is what run_on_device.py builds with, also on the Python 3.8 and TensorRT 8.5 of JetPack 5. All else is `engine`'s
and `trt`'s own.

Verified against a stand-in for TensorRT; unverified on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.files import atomic_write
from . import engine
from .versions import import_tensorrt
from .versions import why_no_tensorrt as why_not

__all__ = ["install", "serialize", "why_not"]


def install() -> None:
    """Put this module in the place of polygraphy, for the whole process; `run_on_device.py` does."""
    engine.why_not = why_not
    engine._serialize = serialize


def serialize(parts: tuple[Any, ...], options: dict[str, Any], take: Any, cache: Path | None) -> bytes:
    """As `engine._serialize`, by TensorRT's own interface.

    Args:
        parts: builder, network and parser.
        options: by the names of polygraphy's CreateConfig; None and False leave TensorRT's default.
        take: changes the finished configuration, or None.
        cache: timing cache to read, if it is there, and to write.
    """
    trt, (builder, network, _) = import_tensorrt(), parts
    config = builder.create_builder_config()
    for pool, size in options["memory_pool_limits"].items():
        config.set_memory_pool_limit(pool, size)
    config.profiling_verbosity = options["profiling_verbosity"]
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
    for name in ("fp16", "int8", "version_compatible", "exclude_lean_runtime"):
        if options.get(name):
            config.set_flag(getattr(trt.BuilderFlag, name.upper()))
    if options.get("precision_constraints") == "obey":
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if options.get("hardware_compatibility_level") is not None:
        config.hardware_compatibility_level = options["hardware_compatibility_level"]
    timings = config.create_timing_cache(cache.read_bytes() if cache.exists() else b"") if cache else None
    if timings is not None:
        config.set_timing_cache(timings, ignore_mismatch=False)
    if take:
        take(builder, network, config)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RuntimeError("it gives no reason")  # `engine` puts what TensorRT logged in its place
    if cache and timings is not None:
        atomic_write(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(serialized)
