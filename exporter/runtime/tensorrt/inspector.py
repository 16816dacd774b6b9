"""The layers of a built engine, by TensorRT's engine inspector: pure functions over its JSON. Torch-free.

The JSON comes in several eras. Up to TensorRT 10 a tensor has "Format/Datatype": "Half", or "Row major linear FP16
format" outside of Myelin's layers; later ones have "Format" and "Datatype" apart, and "I/O Tensors" took the place of
"Bindings" in 11. TensorRT 8 shows a part that Myelin compiled as one layer, in which nothing can be seen.

Verified with real lists of TensorRT for RTX 1.7, which its builder logs. Unverified on a GPU by this project: of other
versions, the tests read JSON that others have published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ...core.errors import InputError

BITS = {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
_WORDS = (  # the first that matches; BFloat16 holds Float16 in it, and FP8 is no Float
    ("int8", r"\bint8\b"),
    ("fp8", r"\b(?:fp8|e4m3\w*|e5m2)\b"),
    ("bf16", r"\b(?:bf16|bfloat16|bfloat)\b"),
    ("fp16", r"\b(?:half|fp16|float16)\b"),
    ("fp32", r"\b(?:float|fp32|float32|tf32)\b"),
)
_TACTIC = re.compile(r"_(i8|s8|e4m3|bf16|f16|f32)(?:i8|s8|u8|e4m3|bf16|f16|f32|tf32|i32|s32)_")
_TACTIC_WORDS = {"i8": "int8", "s8": "int8", "e4m3": "fp8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
_COMPUTES = re.compile(r"gemm|conv|correlation|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
_MYELIN_COMPUTES = re.compile(r"__myl_(?:\w*?)(?:Fc|Gemm|Dot|Conv|Corr)(?=[A-Z_\d])")
_MYELIN_SUMS = re.compile(r"__myl_\w*?MulSum")
_FUSED = re.compile(r"gem[mv]_mha|fmha|mha_v\d|flash_?att", re.IGNORECASE)
_SOFTMAX = re.compile(r"softmax", re.IGNORECASE)
_MYELIN_SOFTMAX = re.compile(r"Max\w*?Sub\w*?Exp")  # its kernels are named after what they do
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_MYELIN = re.compile(r"\{ForeignNode\[")


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine's layer.

    Attributes:
        name: in the engine.
        shape: its sizes; empty where the inspector does not say.
        precision: one of int8, fp8, fp16, bf16, fp32; None for integers, booleans and what is unknown.
    """

    name: str
    shape: tuple[int, ...]
    precision: str | None


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's, mostly of the ONNX nodes in it.
        kind: TensorRT's layer type.
        tactic: the kernel's name; may be empty.
        nodes: ONNX nodes in it, where the inspector says so.
        inputs, outputs: its tensors.
    """

    name: str
    kind: str
    tactic: str
    nodes: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def opaque(self) -> bool:
        """Whether it is a part of the graph that Myelin compiled and in which nothing can be seen."""
        return self.kind.lower() == "myelin" or bool(_MYELIN.search(self.name) and not self.on_dla)

    @property
    def on_dla(self) -> bool:
        """Whether it runs on a DLA."""
        return self.kind.lower().startswith("dla")

    @property
    def generated(self) -> bool:
        """Whether Myelin made the kernel, which is then named after what it does."""
        return self.kind.lower() in ("kgen", "runtime_fusion")

    @property
    def fused_attention(self) -> bool:
        """Whether it is one kernel for all of an attention; by the kernel, as ONNX nodes may be named anything."""
        return bool(_FUSED.search(self.tactic) or (not self.tactic and _FUSED.search(self.name)))

    @property
    def softmax(self) -> bool:
        """Whether it is a softmax outside of a fused attention."""
        if self.fused_attention or self.opaque:
            return False
        if self.generated:
            return bool(_MYELIN_SOFTMAX.search(self.name) or _MYELIN_SOFTMAX.search(self.tactic))
        return bool(_SOFTMAX.search(self.kind))

    @property
    def computes(self) -> bool:
        """Whether it is a matrix multiplication, a convolution or an attention: what precision is asked for."""
        if self.opaque or self.on_dla:
            return False
        if self.generated:
            return self.fused_attention or bool(_MYELIN_COMPUTES.search(self.name))
        return self.fused_attention or bool(_COMPUTES.search(self.kind) or _TACTIC.search(self.tactic))

    @property
    def multiplies_and_sums(self) -> bool:
        """Whether it may hold a product as multiply and sum, which is how a single row is multiplied."""
        return self.generated and not self.computes and bool(_MYELIN_SUMS.search(self.name))

    @property
    def precision(self) -> str | None:
        """What it multiplies: the narrowest of its inputs (scalars left out), else what its kernel's name says."""
        wide = [tensor.precision for tensor in self.inputs if tensor.precision and prod(tensor.shape or (2,)) > 1]
        if wide:
            return min(wide, key=BITS.__getitem__)
        found = _TACTIC.search(self.tactic)
        return _TACTIC_WORDS[found[1]] if found else None


def precision_of(words: str) -> str | None:
    """Precision that a format names, such as `Half` or `Row major linear FP16 format`; None for integers, booleans."""
    return next((name for name, pattern in _WORDS if re.search(pattern, words, re.IGNORECASE)), None)


def read_layers(text: str) -> list[Layer]:
    """Layers of an engine.

    Args:
        text: of `EngineInspector.get_engine_information` with the format JSON.

    Raises:
        InputError: it is not such JSON, or the engine was built without details of its layers.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("TensorRT's engine inspector gave no JSON; the engine's precision is unknown") from error
    found = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError("TensorRT's engine inspector lists no layers; the engine's precision is unknown")
    if not all(isinstance(layer, dict) for layer in found):
        raise InputError("the engine was built without details of its layers; build it with vitrim build BUNDLE")
    return [_layer(layer) for layer in found]


def onnx_nodes(metadata: object) -> tuple[str, ...]:
    """ONNX nodes that a layer's metadata names, in a network and in an engine."""
    return tuple(name.strip() for name in _ONNX.findall(str(metadata or "")))


def _layer(data: Mapping[str, Any]) -> Layer:
    nodes = onnx_nodes(data.get("Metadata"))
    name = str(data.get("Name") or "")
    kernel = data.get("TacticName")
    return Layer(
        name=name,
        kind=str(data.get("LayerType") or ""),
        tactic=str(kernel or ""),
        nodes=nodes or tuple(part.strip() for part in name.split(" + ")),
        inputs=tuple(_tensor(tensor) for tensor in data.get("Inputs") or () if isinstance(tensor, dict)),
        outputs=tuple(_tensor(tensor) for tensor in data.get("Outputs") or () if isinstance(tensor, dict)),
    )


def _tensor(data: Mapping[str, Any]) -> Tensor:
    words = data.get("Format/Datatype") or data.get("Datatype") or data.get("DataType") or data.get("Format") or ""
    sizes = data.get("Dimensions")
    shape = tuple(int(size) for size in sizes) if isinstance(sizes, list) else ()
    return Tensor(str(data.get("Name") or ""), shape, precision_of(str(words)))
