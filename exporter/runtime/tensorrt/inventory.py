"""The kernels of an engine, each with what it does, in which precision, of which ONNX nodes and where. Torch-free.

Known by the names that TensorRT gives: Myelin calls a kernel after its steps, such as `__myl_MaxrSubExpSum`. Read from
real lists of TensorRT for RTX 1.7; those of other versions may have kernels that count as `elementwise` or `other`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.records import Record, optional
from ...core.wiring import BLOCK, EMBEDDING, HEAD, STAGE, Wiring
from .inspector import Layer

Does = Literal[
    "product", "attention", "row product", "softmax", "top-k", "pad", "slice", "copy", "elementwise", "other"
]
_STEPS = re.compile(r"[A-Z][a-z]+")
_MOVES = frozenset({"Move", "Tran", "Resh", "Slic", "Conc", "Cast"})
_RANKS = frozenset({"Topk", "Bott"})


@dataclass(frozen=True)
class Kernel(Record):
    """A kernel of an engine.

    Attributes:
        name, kind: TensorRT's.
        does: `product` (matrix product or convolution, with what is fused to it), `attention` (all of one), `row
            product` (a product as multiply and sum in an elementwise kernel), `softmax` (outside of an attention),
            `top-k` (with what is fused to it), `pad` and `slice` (copies that only make a product's sizes fit), `copy`
            (other copies, transposes and casts), `elementwise` (with reductions), `other`.
        precision: of its narrowest input; None for integers and what cannot be seen.
        nodes: ONNX nodes in it.
        part: where it belongs, see `wiring.Wiring.parts`; None where that is unknown.
    """

    name: str
    kind: str
    does: Does
    precision: str | None
    nodes: tuple[str, ...]
    part: str | None = optional()


def inventory(layers: Sequence[Layer], wiring: Wiring) -> tuple[Kernel, ...]:
    """The kernels of an engine.

    Args:
        layers: in the order in which they run.
        wiring: of the network that the engine was built from.
    """
    does = [_does(layer, wiring.products) for layer in layers]
    parts = [_part(layer, wiring, does[index]) for index, layer in enumerate(layers)]
    _fill(layers, parts)
    return tuple(
        Kernel(layer.name, layer.kind, does[index], layer.precision, layer.nodes, parts[index])
        for index, layer in enumerate(layers)
    )


def by_part(kernels: Iterable[Kernel]) -> dict[str | None, Counter[Does]]:
    """By part how many kernels do what, in the order of the model; None for those whose part is unknown."""
    counts: dict[str | None, Counter[Does]] = {}
    for kernel in kernels:
        counts.setdefault(kernel.part, Counter())[kernel.does] += 1
    return {part: counts[part] for part in sorted(counts, key=_order)}


def beyond(kernels: Iterable[Kernel], others: Iterable[Kernel]) -> dict[str | None, int]:
    """By place how many kernels more one engine has than another; a block and the stage in it are one place.

    What two engines fuse over the line between a block and its stage differs, so the two are only told apart together.

    Args:
        kernels, others: of engines of the same model.

    Returns:
        `embedding`, `block <n>`, `head` and None (unknown); differences of zero are left out.
    """
    counts = Counter(place_of(kernel.part) for kernel in kernels)
    counts.subtract(place_of(kernel.part) for kernel in others)
    return {place: counts[place] for place in sorted(counts, key=_order) if counts[place]}


def place_of(part: str | None) -> str | None:
    """The block of a stage, and any other part itself."""
    return part.replace(STAGE, BLOCK) if part else part


def _order(part: str | None) -> tuple[int, int, str]:
    word, _, number = (part or "").partition(" ")
    ranks = {EMBEDDING: 0, BLOCK: 1, STAGE: 1, HEAD: 2}
    return ranks.get(word, 3), int(number or 0), word


def _fill(layers: Sequence[Layer], parts: list[str | None]) -> None:
    """Where kernels without a known node belong: with what writes their inputs, else with what reads their outputs."""
    writers: dict[str, str | None] = {}
    for index, layer in enumerate(layers):
        parts[index] = parts[index] or next((writers[one.name] for one in layer.inputs if one.name in writers), None)
        writers.update({one.name: parts[index] for one in layer.outputs})
    readers: dict[str, str | None] = {}
    for index in reversed(range(len(layers))):
        layer = layers[index]
        parts[index] = parts[index] or next((readers[one.name] for one in layer.outputs if one.name in readers), None)
        readers.update({one.name: parts[index] for one in layer.inputs})


def _does(layer: Layer, products: Collection[str]) -> Does:
    if layer.opaque or layer.on_dla:
        return "other"
    if layer.fused_attention:
        return "attention"
    if layer.computes:
        return "product"
    if layer.softmax:
        return "softmax"
    if not layer.generated:
        return "copy" if layer.kind.lower() == "reformat" else "other"
    steps = set(_STEPS.findall(layer.name))
    of_product = any(node in products for node in layer.nodes)
    if steps & _RANKS:
        return "top-k"
    if steps <= _MOVES:
        return _copy(steps, of_product)
    return "row product" if of_product and layer.multiplies_and_sums else "elementwise"


def _copy(steps: Collection[str], of_product: bool) -> Does:
    """What a kernel does that only moves values: a product's sizes are made to fit by what goes on and comes off."""
    if of_product and "Conc" in steps and "Cast" not in steps:  # with a cast, it would be there all the same
        return "pad"
    return "slice" if of_product and "Slic" in steps else "copy"


def _part(layer: Layer, wiring: Wiring, does: Does) -> str | None:
    """Where a kernel belongs: with its product, else with most of its nodes."""
    products = [node for node in layer.nodes if node in wiring.products] if does in ("product", "attention") else []
    parts = [wiring.parts[node] for node in products or layer.nodes if node in wiring.parts]
    return Counter(parts).most_common(1)[0][0] if parts else None
