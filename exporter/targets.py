"""Where a graph will run, as a table of data: opset, operators that are missing or wrong, and known faults."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from .errors import InputError


@dataclass(frozen=True)
class Target:
    """A runtime that takes a graph.

    Attributes:
        name: as a recipe names it.
        runtime: which runner serves it.
        opset: highest ONNX opset that it takes.
        lacks: operators without an importer; passes lower them.
        wrong: scatters whose `reduction` it refuses, replaces or computes wrongly, with what it does.
        providers: onnxruntime execution providers, in order.
        tensorrt: major and minor version.
        largest_k: limit of TopK's K.
        integer_topk: whether TopK takes integers.
        int64_io: whether inputs and outputs may be int64 or bool.
        silent: whether what is `wrong` is accepted without an error.
        notes: for a person, with a link where there is a known fault.
    """

    name: str
    runtime: Literal["onnxruntime", "tensorrt"]
    opset: int
    lacks: frozenset[str] = frozenset()
    wrong: tuple[tuple[str, str], ...] = ()
    providers: tuple[str, ...] = ()
    tensorrt: tuple[int, int] | None = None
    largest_k: int | None = None
    integer_topk: bool = True
    int64_io: bool = True
    silent: bool = False
    notes: str = ""


_GITHUB = "https://github.com"
_SCATTER_IGNORED = tuple(
    (op, f"TensorRT 8.x ignores it and overwrites instead ({_GITHUB}/NVIDIA/TensorRT/issues/3750)")
    for op in ("ScatterElements", "ScatterND")
)
_SCATTER_PLUGIN = (
    ("ScatterElements", "TensorRT 10 and later make a plugin of it"),
    ("ScatterND", f"TensorRT 10 and later refuse it ({_GITHUB}/onnx/onnx-tensorrt/issues/957)"),
)
_LARGEST_K = 3840  # ITopKLayer's limit in every version so far

_ALL = (
    Target("ort-cpu", "onnxruntime", 23, providers=("CPUExecutionProvider",), notes="onnxruntime on any CPU"),
    Target(
        "ort-cuda",
        "onnxruntime",
        22,
        lacks=frozenset({"Attention"}),
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
        notes="onnxruntime on an NVIDIA GPU; unverified on a GPU",
    ),
    Target(
        "ort-trt",
        "onnxruntime",
        22,
        lacks=frozenset({"Attention"}),
        providers=("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        notes="onnxruntime's TensorRT provider; what it does not take runs on CUDA; unverified on a GPU",
    ),
    Target(
        "trt-8.5",
        "tensorrt",
        17,
        lacks=frozenset({"LayerNormalization", "Gelu", "Attention"}),
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 5),
        largest_k=_LARGEST_K,
        integer_topk=False,
        int64_io=False,
        silent=True,
        notes=f"JetPack 5.1; TopK's K must be an initializer ({_GITHUB}/onnx/onnx-tensorrt/issues/947); int64 weights "
        "are narrowed to int32",
    ),
    Target(
        "trt-8.6",
        "tensorrt",
        17,
        lacks=frozenset({"Gelu", "Attention"}),
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 6),
        largest_k=_LARGEST_K,
        int64_io=False,
        silent=True,
        notes="JetPack 6.0; fused attention is not found on Orin "
        f"({_GITHUB}/NVIDIA/TensorRT/issues/3575); int64 weights are narrowed to int32",
    ),
    Target(
        "trt-10.3",
        "tensorrt",
        20,
        lacks=frozenset({"Attention"}),
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 3),
        largest_k=_LARGEST_K,
        notes="JetPack 6.1 and 6.2; fp16 ViTs reported wrong "
        f"({_GITHUB}/NVIDIA/TensorRT/issues/4723): prove the engine",
    ),
    Target(
        "trt-10",
        "tensorrt",
        22,
        lacks=frozenset({"Attention"}),
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 13),
        largest_k=_LARGEST_K,
        notes="JetPack 7 (10.13, then 10.16) and desktops; what 10.13 takes, so without the Attention of 10.14",
    ),
    Target(
        "trt-11",
        "tensorrt",
        25,
        wrong=_SCATTER_PLUGIN,
        tensorrt=(11, 0),
        largest_k=_LARGEST_K,
        notes="strongly typed only: precision comes from the graph; on Jetson from 11.4.1 and JetPack 7.2.2 on",
    ),
)
TARGETS = {target.name: target for target in _ALL}
ALIASES = {
    "jetpack-5": "trt-8.5",
    "jetpack-6.0": "trt-8.6",
    "jetpack-6": "trt-10.3",
    "jetpack-7": "trt-10",
}


def get_target(name: str) -> Target:
    """A target by name or alias.

    Raises:
        InputError: there is none; close matches and all names are given.
    """
    known = ALIASES.get(name, name)
    if known not in TARGETS:
        names = [*TARGETS, *ALIASES]
        close = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"export.target: there is no target {name!r}{hint} (there are {', '.join(names)})")
    return TARGETS[known]
