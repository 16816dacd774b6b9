"""How onnxruntime's execution providers are set, and which versions of it and of TensorRT go together. Torch-free.

Unverified on a GPU: the options are those of onnxruntime's documentation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.targets import Precision
from .caches import cache_key, cache_root, private_folder
from .machine import gpu
from .machine.environment import version
from .tensorrt.versions import version_of

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# By TensorRT's major version: the onnxruntimes whose provider is built for it, from the first on and before the second
# (onnxruntime.ai's table; TensorRT 11's migration guide for 1.27). A provider looks for that major version's library.
_BUILT_FOR: dict[int, tuple[tuple[int, int], tuple[int, int] | None]] = {
    11: ((1, 27), None),
    10: ((1, 18), None),  # until when, nobody says
    8: ((1, 14), (1, 18)),
}
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


def tensorrt_library(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """Version of the newest TensorRT library that a program finds here, such as 10.3.0; None without one."""
    for name in _LIBRARIES:
        try:
            number = int(load(name).getInferLibVersion())
        except (OSError, AttributeError):  # not there, or no such library
            continue
        major = 10_000 if number >= 10_000 else 1000  # 10.3.0 counts as 100300, 8.6.1 as 8601
        return f"{number // major}.{number % major // 100}.{number % 100}"
    return None


def pair_problem(onnxruntime: str, tensorrt: str) -> str | None:
    """Why this onnxruntime's TensorRT provider cannot use this TensorRT, with what to do; None where it can.

    Args:
        onnxruntime, tensorrt: versions.
    """
    own, major = version_of(onnxruntime), version_of(tensorrt)[0]
    since, before = _BUILT_FOR.get(major, ((0, 0), (0, 0)))
    if since <= own and (before is None or own < before):
        return None
    mismatch = f"onnxruntime {onnxruntime} has no provider for TensorRT {tensorrt}"
    if major not in _BUILT_FOR:
        return f"{mismatch}: install TensorRT 10 or 11"
    below = f",<{before[0]}.{before[1]}" if before else ""
    return f"{mismatch}: pip install 'onnxruntime-gpu>={since[0]}.{since[1]}{below}'"


def tensorrt_cache(graph: str, root: Path | None = None, tensorrt: str | None = None) -> Path:
    """The folder of the TensorRT provider's engines for one graph; onnxruntime never invalidates them itself.

    Bound to onnxruntime, TensorRT, GPU, driver and graph (microsoft/onnxruntime#22244).

    Args:
        graph: see `caches.graph_hash`.
        root: the cache folder; None takes `caches.cache_root()`.
        tensorrt: version; None asks the library.

    Raises:
        InputError: others may write to the folder.
        EnvironmentLackError: it cannot be made.
    """
    own = version("onnxruntime-gpu") or version("onnxruntime")
    key = cache_key(tensorrt=tensorrt or tensorrt_library(), onnxruntime=own, graph=graph, **gpu.describe())
    return private_folder((root or cache_root()) / "onnxruntime" / key)


def provider_options(
    providers: Sequence[str],
    graph: str,
    precision: Precision = "fp32",
    root: Path | None = None,
    tensorrt: str | None = None,
) -> list[dict[str, str]]:
    """Options of execution providers, in their order.

    The TensorRT provider types a network strongly from 10 on when no precision flag is set, so that the graph's own
    types count; on 8 fp16 and int8 must be allowed explicitly. TF32 is off in the CUDA provider.

    Args:
        providers: names.
        graph: see `caches.graph_hash`.
        precision: that the graph holds.
        root: the cache folder; None takes `caches.cache_root()`.
        tensorrt: version; None asks the library.
    """
    return [_options(name, graph, precision, root, tensorrt) for name in providers]


def _options(name: str, graph: str, precision: Precision, root: Path | None, tensorrt: str | None) -> dict[str, str]:
    if name == CUDA:
        return {"use_tf32": "0"}
    if name != TENSORRT:
        return {}
    here = tensorrt or tensorrt_library()
    folder = str(tensorrt_cache(graph, root, here))
    found = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
    }
    if here is not None and version_of(here) < (10, 0) and precision in ("fp16", "int8"):
        found["trt_fp16_enable"] = "True"
        if precision == "int8":
            found["trt_int8_enable"] = "True"
    return found


def named(providers: Sequence[str], options: Sequence[Mapping[str, str]]) -> list[Any]:
    """Providers as onnxruntime takes them: names, with their options where there are any."""
    return [(name, dict(own)) if own else name for name, own in zip(providers, options, strict=True)]
