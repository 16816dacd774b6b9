"""Where a graph will run, as a table of data: opset, operators that are missing or wrong, and known faults."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from .errors import InputError

GatherForm = Literal["gather", "flat"]


@dataclass(frozen=True)
class Target:
    """A runtime that takes a graph.

    Attributes:
        name: as a recipe names it.
        runtime: which runner serves it.
        opset: highest ONNX opset that it takes.
        lacks: operators without an importer; passes lower them.
        wrong: operators that it takes and computes wrongly, with the reason.
        providers: onnxruntime execution providers, in order.
        tensorrt: major and minor version.
        largest_k: limit of TopK's K.
        integer_topk: whether TopK takes integers.
        int64_io: whether inputs and outputs may be int64.
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
    notes: str = ""


_SCATTER_IGNORED = tuple(
    (op, "TensorRT 8.x ignores `reduction` and overwrites instead: accepted and wrong (NVIDIA/TensorRT#3750)")
    for op in ("ScatterElements", "ScatterND")
)
_SCATTER_PLUGIN = (
    ("ScatterElements", "a reduction becomes a plugin on TensorRT 10"),
    ("ScatterND", "refused when `reduction` is present (onnx-tensorrt#957)"),
)

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
        "trt-8.5",
        "tensorrt",
        17,
        lacks=frozenset({"LayerNormalization", "Gelu", "Attention"}),
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 5),
        largest_k=3840,
        integer_topk=False,
        int64_io=False,
        notes="JetPack 5.1; TopK's K must be an initializer (onnx-tensorrt#947)",
    ),
    Target(
        "trt-8.6",
        "tensorrt",
        17,
        lacks=frozenset({"Gelu", "Attention"}),
        wrong=_SCATTER_IGNORED,
        tensorrt=(8, 6),
        largest_k=3840,
        int64_io=False,
        notes="JetPack 6.0; fused attention is not found on Orin (NVIDIA/TensorRT#3575)",
    ),
    Target(
        "trt-10.3",
        "tensorrt",
        20,
        lacks=frozenset({"Attention"}),
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 3),
        largest_k=3840,
        notes="JetPack 6.1 and 6.2; fp16 ViTs reported wrong (NVIDIA/TensorRT#4723): prove the engine",
    ),
    Target(
        "trt-10",
        "tensorrt",
        22,
        lacks=frozenset({"Attention"}),
        wrong=_SCATTER_PLUGIN,
        tensorrt=(10, 13),
        largest_k=3840,
        notes="JetPack 7 and desktops with 10.13 to 10.16",
    ),
    Target(
        "trt-11",
        "tensorrt",
        22,
        lacks=frozenset({"Attention"}),
        wrong=_SCATTER_PLUGIN,
        tensorrt=(11, 0),
        largest_k=3840,
        notes="strongly typed only; on Jetson from JetPack 7.2.2 on",
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
