"""What an engine computes in: precisions of its layers against what was asked for, and its attentions. Torch-free.

Unverified on a GPU by this project: the tests read JSON that others have published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.records import Record
from .inspector import BITS, Layer

TOLERATED = 0.1  # share of layers whose precision a weakly typed builder may choose otherwise, by timing
_NAMED = 10  # wrong layers that a summary names


@dataclass(frozen=True)
class Attention(Record):
    """Attentions of an engine.

    Attributes:
        fused: how many are one kernel.
        not_fused: softmaxes that stand alone.
        names: of those, at most 5.
        reason: why; None without any.
    """

    fused: int = 0
    not_fused: int = 0
    names: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class LayerSummary(Record):
    """What an engine's layers compute in.

    Attributes:
        layers: how many there are.
        precisions: matrix multiplications by precision.
        opaque: parts that were compiled and cannot be seen into.
        dla: layers on a DLA.
        attention: how many are fused.
        wrong: layers in another precision than asked for, at most 10.
        wrong_share: of the multiplications.
        passed: whether no more are wrong than may be.
        verdict: in words.
    """

    layers: int
    precisions: dict[str, int]
    opaque: int
    dla: int
    attention: Attention
    wrong: tuple[str, ...]
    wrong_share: float
    passed: bool
    verdict: str


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
    return BITS[str(layer.precision)] > 16


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


def attention(layers: Sequence[Layer], wanted: Wanted) -> Attention:
    """How many attentions are one kernel, how many softmaxes stand alone, and why.

    A method that reads attention itself to score tokens has a softmax of its own, which can never be fused.
    """
    alone = [index for index, layer in enumerate(layers) if layer.softmax]
    reasons = []
    for index in alone:
        product = _maker(layers, index)
        tokens = next((tensor.shape[-1] for tensor in layers[index].inputs if len(tensor.shape) > 2), None)
        head = product.inputs[0].shape[-1] if product and product.inputs and product.inputs[0].shape else None
        precision = product.precision if product else None
        reasons.append(why_not_fused(precision, tokens, head, wanted.version, wanted.capability))
    return Attention(
        fused=sum(layer.fused_attention for layer in layers),
        not_fused=len(alone),
        names=tuple(layers[index].name for index in alone[:5]),
        reason="; ".join(dict.fromkeys(reasons)) or None,
    )


def _maker(layers: Sequence[Layer], index: int) -> Layer | None:
    """The multiplication that made a softmax's scores: the nearest before it, as Myelin uses names more than once."""
    taken = {tensor.name for tensor in layers[index].inputs}
    before = [layer for layer in layers[:index] if layer.computes]
    named = [layer for layer in before if taken & {tensor.name for tensor in layer.outputs}]
    return (named or before or [None])[-1]  # type: ignore[list-item]


def summarize(layers: Sequence[Layer], wanted: Wanted) -> LayerSummary:
    """What an engine computes in, for its identity and for a person."""
    computing = [layer for layer in layers if layer.computes and layer.precision]
    wrong = wrong_layers(layers, wanted)
    share = len(wrong) / len(computing) if computing else 0.0
    opaque, on_dla = sum(layer.opaque for layer in layers), sum(layer.on_dla for layer in layers)
    return LayerSummary(
        layers=len(layers),
        precisions=dict(sorted(Counter(str(layer.precision) for layer in computing).items())),
        opaque=opaque,
        dla=on_dla,
        attention=attention(layers, wanted),
        wrong=tuple(layer.name for layer in wrong[:_NAMED]),
        wrong_share=round(share, 4),
        passed=share <= (0.0 if wanted.strong else TOLERATED),
        verdict=_verdict(wanted, len(computing), [layer.name for layer in wrong], opaque, on_dla),
    )


def unreadable(reason: str) -> LayerSummary:
    """The summary of an engine whose layers cannot be read."""
    return LayerSummary(0, {}, 0, 0, Attention(), (), 0.0, False, reason)


def _verdict(wanted: Wanted, computing: int, wrong: Sequence[str], opaque: int, on_dla: int) -> str:
    """One line: which layers run otherwise, or what cannot be seen."""
    if wrong:
        names = ", ".join(wrong[:3]) + (" and others" if len(wrong) > 3 else "")
        return f"{len(wrong)} of {computing} matrix layers do not run in {wanted.precision} ({names})"
    if not computing:
        return f"no matrix layer can be seen ({opaque} compiled parts, {on_dla} on a DLA): not checked"
    unseen = f"; {opaque} compiled parts cannot be seen into" if opaque else ""
    return f"all {computing} matrix layers run in {wanted.precision} or as they were pinned{unseen}"
