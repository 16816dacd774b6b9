"""How a parsed network hangs together: which block or stage each ONNX node is of, and who reads probabilities.

TensorRT's own network is read, so that this works where engines are built, and for any graph. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .inspector import onnx_nodes

_HELPER = "ONNXTRT_"  # layers of the parser's own
_THROUGH = frozenset({"SHUFFLE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE"})
_FEWER = _THROUGH | {"SLICE", "GATHER"}  # what a skip may go through where tokens leave before the branch
_WEIGHT = 8  # least size of a weight's two sides: vectors and masks are none
EMBEDDING, BLOCK, STAGE, HEAD = "embedding", "block", "stage", "head"


@dataclass(frozen=True)
class Probabilities:
    """Who reads a softmax.

    Attributes:
        values: the product that weighs values by it, which makes it an attention; None: there is none.
        others: further ONNX nodes that read it.
    """

    values: str | None
    others: tuple[str, ...]


@dataclass(frozen=True)
class Wiring:
    """What a network tells about an engine that is built from it.

    Attributes:
        parts: by ONNX node where it belongs: `embedding`, `block <n>`, `stage <n>` (the pruning in block n) or `head`;
            empty where the graph has no blocks.
        products: ONNX nodes that are matrix products or convolutions.
        softmaxes: by ONNX node of a softmax, who reads it.
    """

    parts: dict[str, str] = field(default_factory=dict)
    products: frozenset[str] = frozenset()
    softmaxes: dict[str, Probabilities] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """A layer of a network.

    Attributes:
        node: the ONNX node that it was made of; empty for the parser's own helpers.
        kind: TensorRT's layer type, such as `SHUFFLE`.
        makers: of its inputs, the places in the network; None for inputs of the graph.
        shapes: of its inputs.
    """

    node: str
    kind: str
    makers: tuple[int | None, ...]
    shapes: tuple[tuple[int, ...], ...]


def read_wiring(network: Any) -> Wiring:
    """The wiring of a parsed network."""
    steps = _steps(network)
    constant = _constants(steps)
    products = frozenset(
        step.node
        for step, same in zip(steps, constant, strict=True)
        if step.kind in ("MATRIX_MULTIPLY", "CONVOLUTION") and not same
    )
    return Wiring(_parts(steps, constant), products, dict(_softmaxes(steps, constant)))


def _steps(network: Any) -> list[_Step]:
    """Layers in the parser's order, in which makers come first."""
    steps: list[_Step] = []
    made: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        found = onnx_nodes(getattr(layer, "metadata", ""))  # 8.5 has no metadata, but names alike
        inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
        inputs = [tensor for tensor in inputs if tensor is not None]
        makers = tuple(made.get(tensor.name) for tensor in inputs)
        node = found[0] if found else "" if layer.name.startswith(_HELPER) else str(layer.name)
        shapes = tuple(tuple(getattr(tensor, "shape", ())) for tensor in inputs)
        steps.append(_Step(node, str(layer.type).rpartition(".")[2], makers, shapes))
        made.update({layer.get_output(number).name: index for number in range(layer.num_outputs)})
    return steps


def _constants(steps: Sequence[_Step]) -> list[bool]:
    """Of each step, whether it is the same for every image."""
    found: list[bool] = []
    for step in steps:
        known = [maker is not None and found[maker] for maker in step.makers]
        found.append(step.kind == "CONSTANT" or (bool(known) and all(known)))
    return found


def _softmaxes(steps: Sequence[_Step], constant: Sequence[bool]) -> Iterator[tuple[str, Probabilities]]:
    readers: dict[int, list[int]] = {}
    for index, step in enumerate(steps):
        for maker in step.makers:
            if maker is not None:
                readers.setdefault(maker, []).append(index)
    for index, step in enumerate(steps):
        if step.kind != "SOFTMAX":
            continue
        values, others, todo = None, dict[str, None](), [(index, one) for one in readers.get(index, ())]
        while todo:
            source, place = todo.pop(0)
            reader = steps[place]
            if reader.kind in _THROUGH:
                todo += [(place, one) for one in readers.get(place, ())]
            elif values is None and _weighs(reader, source, constant):
                values = reader.node
            else:
                others[reader.node] = None
        yield step.node, Probabilities(values, tuple(others))


def _weighs(reader: _Step, source: int, constant: Sequence[bool]) -> bool:
    """Whether a step is a product of probabilities with values, which are no constants."""
    if reader.kind != "MATRIX_MULTIPLY" or len(reader.makers) < 2 or reader.makers[0] != source:
        return False
    return reader.makers[1] is None or not constant[reader.makers[1]]


def _parts(steps: Sequence[_Step], constant: Sequence[bool]) -> dict[str, str]:
    """Where nodes belong, by the skips of the residual stream.

    A skip goes from a step to an addition around a branch that multiplies by weights, and around no other skip's end:
    sizes of tokens, which a later stage adds to, reach over whole blocks. A branch with a softmax in it is an attention
    and begins a block; one without is the MLP of the same block. What depends on a block and is in no branch is the
    pruning that stands in it, or behind the last skip the head.
    """
    before = _before(steps)
    block, last = -1, -1
    own: dict[int, int] = {}
    for index, region in _skips(steps, constant, before):
        if any(steps[place].kind == "SOFTMAX" or "ATTENTION" in steps[place].kind for place in region):
            block += 1
        if block >= 0:
            own.update({place: max(block, own.get(place, -1)) for place in region if place not in own})
            last = index
    if block < 0:
        return {}
    parts: dict[str, str] = {}
    levels: list[int] = []
    for index, step in enumerate(steps):
        above = max((levels[maker] for maker in step.makers if maker is not None), default=-1)
        levels.append(own.get(index, above))
        if index in own:
            part = f"{BLOCK} {own[index]}"
        elif before[index] >> last & 1:
            part = HEAD
        else:
            part = EMBEDDING if above < 0 else f"{STAGE} {above}"
        if step.node and not constant[index]:
            parts.setdefault(step.node, part)
    return parts


def _before(steps: Sequence[_Step]) -> list[int]:
    """Of each step, the steps that it depends on, as bits."""
    found: list[int] = []
    for step in steps:
        bits = 0
        for maker in step.makers:
            if maker is not None:
                bits |= found[maker] | 1 << maker
        found.append(bits)
    return found


def _skips(steps: Sequence[_Step], constant: Sequence[bool], before: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Of each skip where it ends, and the steps of its branch with that end."""
    ends: set[int] = set()
    for index, step in enumerate(steps):
        makers = [maker for maker in step.makers if maker is not None and not constant[maker]]
        if step.kind != "ELEMENTWISE" or len(makers) != 2 or len(set(step.shapes)) > 1:
            continue  # what is spread over a tensor is a bias, and no skip
        for start, branch in (makers, makers[::-1]):
            source = _source(steps, start, before[branch])
            if source is None:
                continue
            inside = before[branch] | 1 << branch
            region = [
                place for place in range(source, branch + 1) if inside >> place & 1 and before[place] >> source & 1
            ]
            if ends.isdisjoint(region) and any(_weighted(steps[place], constant) for place in region):
                ends.add(index)
                yield index, [*region, index]
                break


def _source(steps: Sequence[_Step], start: int, bits: int) -> int | None:
    """The step that both a skip and its branch begin at: `start`, or what it is tokens or another type of."""
    place: int | None = start
    while place is not None and not bits >> place & 1:
        place = steps[place].makers[0] if steps[place].kind in _FEWER and steps[place].makers else None
    return place


def _weighted(step: _Step, constant: Sequence[bool]) -> bool:
    """Whether a step is a product with a weight."""
    return step.kind == "MATRIX_MULTIPLY" and any(
        maker is not None and constant[maker] and min(step.shapes[index][-2:], default=0) >= _WEIGHT
        for index, maker in enumerate(step.makers)
    )
