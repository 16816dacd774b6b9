"""What an engine computes in: precisions of its layers against what was asked for, and its attentions. Torch-free.

Verified with real lists of TensorRT for RTX 1.7. Unverified on a GPU by this project: of other versions, the tests read
JSON that others have published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.records import Record, optional
from ...core.wiring import Probabilities, Wiring
from .inspector import BITS, Layer

TOLERATED = 0.1  # share of layers whose precision a weakly typed builder may choose otherwise, by timing
_NAMED = 10  # wrong layers that a summary names


@dataclass(frozen=True)
class Unfused(Record):
    """An attention that is several kernels.

    Attributes:
        part: the block that it is in, see `wiring.Wiring.parts`; None where that is unknown.
        softmax: the kernel.
        reason: why.
    """

    part: str | None
    softmax: str
    reason: str


@dataclass(frozen=True)
class Attention(Record):
    """Attentions of an engine.

    Attributes:
        fused: how many are one kernel.
        not_fused: how many are not: softmaxes that stand alone and weigh values, as far as the network tells.
        names: of those, at most 5.
        reason: why; None without any.
        unfused: each of them with its block and its own reason.
        scores: softmaxes that stand alone and weigh no values: a method's, computed beside a fused attention.
    """

    fused: int = 0
    not_fused: int = 0
    names: tuple[str, ...] = ()
    reason: str | None = None
    unfused: tuple[Unfused, ...] = optional(())
    scores: int = optional(0)


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
        wrong_share: of the multiplications, those in parts that cannot be seen into counted as right.
        passed: whether no more are wrong than may be.
        verdict: in words.
        products: matrix products and convolutions of the graph; None where the network did not tell.
        summed: those of them that are no matrix layer: multiplied and summed in an elementwise kernel, whose precision
            nothing says, or folded away.
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
    products: int | None = optional()
    summed: tuple[str, ...] = optional(())


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
        wiring: of the network.
    """

    precision: str
    pinned: frozenset[str] = frozenset()
    quantized: frozenset[str] = frozenset()
    strong: bool = True
    version: tuple[int, int] = (11, 0)
    capability: tuple[int, int] | None = None
    wiring: Wiring = Wiring()


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
    precision: str | None,
    tokens: int | None,
    head: int | None,
    version: tuple[int, int],
    capability: Any,
    readers: Sequence[str] = (),
) -> str:
    """Why TensorRT runs an attention as separate layers, by the rules that NVIDIA gives (NVIDIA/TensorRT#2981).

    Args:
        precision: of its two matrix multiplications; None where it is unknown.
        tokens: sequence length; None where it is unknown.
        head: size of a head; None where it is unknown.
        version: of TensorRT.
        capability: compute capability as a pair; None where it is unknown.
        readers: ONNX nodes that read its probabilities, but for the product with the values.
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
    if readers:
        more = f" and {len(readers) - 1} more" if len(readers) > 1 else ""
        return f"its probabilities are read by {readers[0]}{more} as well, so they must be written"
    return (
        "no rule of NVIDIA's is broken, so TensorRT did not recognise it (is Q or K scaled before the first product, "
        "and no cast between the products?) or timed it as slower"
    )


def attention(layers: Sequence[Layer], wanted: Wanted) -> Attention:
    """How many attentions are one kernel, how many are not and why, and how many softmaxes are no attention.

    Those of a method's own scores are none: nothing weighs values by them, or they are written out in other operators.
    """
    unfused: list[Unfused] = []
    scores = 0
    for index in [index for index, layer in enumerate(layers) if layer.softmax]:
        layer, known = layers[index], wanted.wiring.softmaxes
        node = next((node for node in layer.nodes if node in known), None)
        read = None if node is None else known[node]
        written_out = known and node is None and not wanted.wiring.parts.keys().isdisjoint(layer.nodes)
        if written_out or (read is not None and read.values is None):
            scores += 1
            continue
        part = None if node is None else wanted.wiring.parts.get(node)
        unfused.append(Unfused(part, layer.name, _reason(layers, index, wanted, read)))
    return Attention(
        fused=sum(layer.fused_attention for layer in layers),
        not_fused=len(unfused),
        names=tuple(one.softmax for one in unfused[:5]),
        reason="; ".join(dict.fromkeys(one.reason for one in unfused)) or None,
        unfused=tuple(unfused),
        scores=scores,
    )


def _reason(layers: Sequence[Layer], index: int, wanted: Wanted, read: Probabilities | None) -> str:
    """Why the attention of a softmax is not one kernel."""
    product = _maker(layers, index)
    tokens = next((tensor.shape[-1] for tensor in layers[index].inputs if len(tensor.shape) > 2), None)
    head = product.inputs[0].shape[-1] if product and product.inputs and product.inputs[0].shape else None
    precision = product.precision if product else None
    readers = () if read is None else read.others
    return why_not_fused(precision, tokens, head, wanted.version, wanted.capability, readers)


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
    opaque, on_dla = sum(layer.opaque for layer in layers), sum(layer.on_dla for layer in layers)
    products = wanted.wiring.products
    # Where one compiled part holds all blocks, the patch embedding alone would else be all that there is.
    whole = max(len(computing), len(products) if opaque else 0)
    share = len(wrong) / whole if whole else 0.0
    judged = {node for layer in computing for node in layer.nodes}
    summed = () if opaque or on_dla else tuple(sorted(products - judged))
    return LayerSummary(
        layers=len(layers),
        precisions=dict(sorted(Counter(str(layer.precision) for layer in computing).items())),
        opaque=opaque,
        dla=on_dla,
        attention=attention(layers, wanted),
        wrong=tuple(layer.name for layer in wrong[:_NAMED]),
        wrong_share=round(share, 4),
        passed=share <= (0.0 if wanted.strong else TOLERATED),
        verdict=_verdict(wanted, len(computing), [layer.name for layer in wrong], opaque, on_dla, len(summed)),
        products=len(products) or None,
        summed=summed,
    )


def unreadable(reason: str) -> LayerSummary:
    """The summary of an engine whose layers cannot be read."""
    return LayerSummary(0, {}, 0, 0, Attention(), (), 0.0, False, reason)


def _verdict(wanted: Wanted, computing: int, wrong: Sequence[str], opaque: int, on_dla: int, summed: int = 0) -> str:
    """One line: which layers run otherwise, or what cannot be seen."""
    unseen = f"; {opaque} compiled parts cannot be seen into" if opaque else ""
    if wrong:
        names = ", ".join(wrong[:3]) + (" and others" if len(wrong) > 3 else "")
        return f"{len(wrong)} of {computing} matrix layers do not run in {wanted.precision} ({names}){unseen}"
    if not computing:
        return f"no matrix layer can be seen ({opaque} compiled parts, {on_dla} on a DLA): not checked"
    if summed:
        many = len(wanted.wiring.products)
        unseen += f"; {summed} of {many} products are in none of them (single rows are multiplied and summed)"
    return f"all {computing} matrix layers run in {wanted.precision} or as they were pinned{unseen}"
