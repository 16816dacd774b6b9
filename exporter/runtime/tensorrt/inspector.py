"""What a built engine really computes in, by TensorRT's engine inspector: pure functions over its JSON. Torch-free.

The JSON comes in several eras. Up to TensorRT 10 a tensor has "Format/Datatype": "Half", or "Row major linear FP16
format" outside of Myelin's layers; later ones have "Format" and "Datatype" apart, and "I/O Tensors" took the place of
"Bindings" in 11. TensorRT 8 shows a part that Myelin compiled as one layer, in which nothing can be seen.

Unverified on a GPU by this project: the tests read JSON that others have published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...core.errors import InputError

TOLERATED = 0.1  # share of layers whose precision a weakly typed builder may choose otherwise, by timing
_BITS = {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
_WORDS = (  # the first that matches; BFloat16 holds Float16 in it, and FP8 is no Float
    ("int8", r"\bint8\b"),
    ("fp8", r"\b(?:fp8|e4m3\w*|e5m2)\b"),
    ("bf16", r"\b(?:bf16|bfloat16|bfloat)\b"),
    ("fp16", r"\b(?:half|fp16|float16)\b"),
    ("fp32", r"\b(?:float|fp32|float32|tf32)\b"),
)
_TACTIC = re.compile(r"_(i8|s8|e4m3|bf16|f16|f32)(?:i8|s8|u8|e4m3|bf16|f16|f32|tf32|i32|s32)_")
_TACTIC_WORDS = {"i8": "int8", "s8": "int8", "e4m3": "fp8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
_COMPUTES = re.compile(r"gemm|conv|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
_MYELIN_COMPUTES = re.compile(r"__myl_(?:\w*?)(?:Fc|Gemm|Dot|Conv)(?=[A-Z_\d])")
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
        shape: its sizes; empty where the inspector does not tell.
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
        nodes: ONNX nodes in it, where the inspector tells.
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
    def fused_attention(self) -> bool:
        """Whether it is one kernel for all of an attention; by the kernel, as ONNX nodes may be named anything."""
        return bool(_FUSED.search(self.tactic) or (not self.tactic and _FUSED.search(self.name)))

    @property
    def softmax(self) -> bool:
        """Whether it is a softmax outside of a fused attention."""
        if self.fused_attention or self.opaque:
            return False
        if self.kind.lower() == "kgen":
            return bool(_MYELIN_SOFTMAX.search(self.name) or _MYELIN_SOFTMAX.search(self.tactic))
        return bool(_SOFTMAX.search(self.kind))

    @property
    def computes(self) -> bool:
        """Whether it is a matrix multiplication, a convolution or an attention: what precision is asked for."""
        if self.opaque or self.on_dla:
            return False
        if self.kind.lower() == "kgen":
            return self.fused_attention or bool(_MYELIN_COMPUTES.search(self.name))
        return self.fused_attention or bool(_COMPUTES.search(self.kind) or _TACTIC.search(self.tactic))

    @property
    def precision(self) -> str | None:
        """What it multiplies: the narrowest of its inputs (scalars left out), else what its kernel's name says."""
        wide = [tensor.precision for tensor in self.inputs if tensor.precision and prod(tensor.shape or (2,)) > 1]
        if wide:
            return min(wide, key=_BITS.__getitem__)
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
        raise InputError("TensorRT's engine inspector gave no JSON; the engine's precision cannot be told") from error
    found = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError("TensorRT's engine inspector lists no layers; the engine's precision cannot be told")
    if not all(isinstance(layer, dict) for layer in found):
        raise InputError("the engine was built without details of its layers; build it with vitrim build BUNDLE")
    return [_layer(layer) for layer in found]


def _layer(data: Mapping[str, Any]) -> Layer:
    nodes = tuple(name.strip() for name in _ONNX.findall(str(data.get("Metadata") or "")))
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


@dataclass(frozen=True)
class Wanted:
    """What an engine was asked for.

    Attributes:
        precision: of the graph.
        pinned: ONNX nodes that stay in float32.
        quantized: ONNX nodes that take dequantized values, of an int8 graph.
        strong: whether the network was strongly typed.
        version: of TensorRT.
        capability: compute capability of the GPU; None where it is unknown.
    """

    precision: str
    pinned: frozenset[str] = frozenset()
    quantized: frozenset[str] = frozenset()
    strong: bool = True
    version: tuple[int, int] = (11, 0)
    capability: tuple[int, int] | None = None


def wrong_layers(layers: Sequence[Layer], wanted: Wanted) -> list[Layer]:
    """Layers that compute in another precision than was asked for.

    In an int8 graph what takes dequantized values must be int8, and nothing else wider than 16 bits. Layers with a
    pinned node may be anything, and layers in which nothing can be seen are not judged.
    """
    return [layer for layer in layers if layer.computes and layer.precision and _is_wrong(layer, wanted)]


def _is_wrong(layer: Layer, wanted: Wanted) -> bool:
    if _holds(layer, wanted.pinned):
        return False
    if wanted.precision != "int8":
        return layer.precision != wanted.precision
    if _holds(layer, wanted.quantized):
        return layer.precision != "int8"
    return _BITS[str(layer.precision)] > 16


def _holds(layer: Layer, nodes: Collection[str]) -> bool:
    """Whether one of the nodes is in a layer; the parser names further layers of a node with `_<number>`."""
    return any(node in nodes or re.sub(r"_\d+$", "", node) in nodes for node in layer.nodes)


def why_not_fused(
    precision: str | None, tokens: int | None, head: int | None, version: tuple[int, int], capability: Any
) -> str:
    """Why TensorRT runs an attention as separate layers, by the rules that NVIDIA gives (NVIDIA/TensorRT#2981).

    Args:
        precision: of its two matrix multiplications; None where it is unknown.
        tokens: sequence length; None where it is unknown.
        head: size of a head; None where it is unknown.
        version: of TensorRT.
        capability: compute capability as a pair; None where it is unknown.
    """
    if version < (8, 6):
        return "TensorRT fuses attention from 8.6 on"
    if capability is not None and capability < (7, 5):
        return "fused attention needs compute capability 7.5"
    if precision == "fp32":
        return "attention in float32 is never fused: it needs fp16, bf16 or int8"
    if precision == "int8" and head is not None and head not in (16, 32, 64):
        return f"int8 attention needs heads of 16, 32 or 64, not {head}"
    if precision == "int8" and tokens is not None and tokens > 512:
        return f"int8 attention takes at most 512 tokens, not {tokens}"
    if precision != "int8" and head is not None and not 16 <= head <= 256:
        return f"fused attention needs heads of 16 to 256, not {head}"
    if precision != "int8" and head is not None and head % 8 and version < (10, 14):
        return f"fused attention needs heads that are multiples of 8, not {head}, before TensorRT 10.14"
    if capability == (8, 7) and version < (10, 0):
        return "TensorRT 8.6 lacks fused attention on Orin (NVIDIA/TensorRT#3575); JetPack 6.1 has it"
    return (
        "no rule of NVIDIA's is broken, so TensorRT did not recognise it (is Q or K scaled before the first product, "
        "and no cast between the products?) or timed it as slower"
    )


def attention(layers: Sequence[Layer], wanted: Wanted) -> dict[str, Any]:
    """How many attentions are one kernel, how many softmaxes stand alone, and why.

    A method that reads attention itself to score tokens has a softmax of its own, which can never be fused.

    Returns:
        `fused`, `not_fused`, `names` of the separate softmaxes (at most 5) and `reason` (None without any).
    """
    alone = [index for index, layer in enumerate(layers) if layer.softmax]
    reasons = []
    for index in alone:
        product = _maker(layers, index)
        tokens = next((tensor.shape[-1] for tensor in layers[index].inputs if len(tensor.shape) > 2), None)
        head = product.inputs[0].shape[-1] if product and product.inputs and product.inputs[0].shape else None
        precision = product.precision if product else None
        reasons.append(why_not_fused(precision, tokens, head, wanted.version, wanted.capability))
    return {
        "fused": sum(layer.fused_attention for layer in layers),
        "not_fused": len(alone),
        "names": [layers[index].name for index in alone[:5]],
        "reason": "; ".join(dict.fromkeys(reasons)) or None,
    }


def _maker(layers: Sequence[Layer], index: int) -> Layer | None:
    """The multiplication that made a softmax's scores: the nearest before it, as Myelin uses names more than once."""
    taken = {tensor.name for tensor in layers[index].inputs}
    before = [layer for layer in layers[:index] if layer.computes]
    named = [layer for layer in before if taken & {tensor.name for tensor in layer.outputs}]
    return (named or before or [None])[-1]  # type: ignore[list-item]


def summarize(layers: Sequence[Layer], wanted: Wanted) -> dict[str, Any]:
    """What an engine computes in, for its identity and for a person.

    Returns:
        `layers`; `precisions`: multiplications by precision; `opaque` layers; `dla` layers; `attention`; `wrong`: names
        (at most 10) and `wrong_share` of the multiplications; `passed`; `verdict` in words.
    """
    computing = [layer for layer in layers if layer.computes and layer.precision]
    wrong = wrong_layers(layers, wanted)
    share = len(wrong) / len(computing) if computing else 0.0
    precisions: dict[str, int] = {}
    for layer in computing:
        precisions[str(layer.precision)] = precisions.get(str(layer.precision), 0) + 1
    found = {
        "layers": len(layers),
        "precisions": dict(sorted(precisions.items())),
        "opaque": sum(layer.opaque for layer in layers),
        "dla": sum(layer.on_dla for layer in layers),
        "attention": attention(layers, wanted),
        "wrong": [layer.name for layer in wrong[:10]],
        "wrong_share": round(share, 4),
        "passed": share <= (0.0 if wanted.strong else TOLERATED),
    }
    return {**found, "verdict": _verdict(found, wanted, len(computing), len(wrong))}


def untold(reason: str) -> dict[str, Any]:
    """The summary of an engine whose layers cannot be read."""
    nothing = {"fused": 0, "not_fused": 0, "names": [], "reason": None}
    found = {
        "layers": 0,
        "precisions": {},
        "opaque": 0,
        "dla": 0,
        "attention": nothing,
        "wrong": [],
        "wrong_share": 0.0,
    }
    return {**found, "passed": False, "verdict": reason}


def _verdict(found: Mapping[str, Any], wanted: Wanted, computing: int, wrong: int) -> str:
    """One line: which layers run otherwise, or what cannot be seen."""
    if wrong:
        names = ", ".join(found["wrong"][:3]) + (" and others" if wrong > 3 else "")
        return f"{wrong} of {computing} matrix layers do not run in {wanted.precision} ({names})"
    if not computing:
        return f"no matrix layer can be seen ({found['opaque']} compiled parts, {found['dla']} on a DLA): not checked"
    unseen = f"; {found['opaque']} compiled parts cannot be seen into" if found["opaque"] else ""
    return f"all {computing} matrix layers run in {wanted.precision} or as they were pinned{unseen}"
