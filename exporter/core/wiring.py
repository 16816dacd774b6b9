"""How a network hangs together: which block or stage each ONNX node is of, and who reads probabilities.

The layers of any graph do, whoever parsed it: see `runtime.tensorrt.wiring` and `graph.blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
        behind: nodes of a stage, or of the embedding, that work on all that the block, or the embedding, gave: they
            stand behind it, or in the next block before some of its tokens go.
    """

    parts: dict[str, str] = field(default_factory=dict)
    products: frozenset[str] = frozenset()
    softmaxes: dict[str, Probabilities] = field(default_factory=dict)
    behind: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Step:
    """A layer of a network, or a node of a graph.

    Attributes:
        node: the ONNX node that it was made of; empty for a parser's own helpers.
        kind: a layer type of TensorRT's, such as `SHUFFLE`.
        makers: of its inputs, the places in the network; None for inputs of the graph.
        shapes: of its inputs.
    """

    node: str
    kind: str
    makers: tuple[int | None, ...]
    shapes: tuple[tuple[int, ...], ...]


def wiring_of(steps: Sequence[Step]) -> Wiring:
    """The wiring of a network, from its layers; makers come first."""
    constant = _constants(steps)
    products = frozenset(
        step.node
        for step, same in zip(steps, constant, strict=True)
        if step.kind in ("MATRIX_MULTIPLY", "CONVOLUTION") and not same
    )
    parts, behind = _parts(steps, constant)
    return Wiring(parts, products, dict(_softmaxes(steps, constant)), behind)


def _constants(steps: Sequence[Step]) -> list[bool]:
    """Of each step, whether it is the same for every image."""
    found: list[bool] = []
    for step in steps:
        known = [maker is not None and found[maker] for maker in step.makers]
        found.append(step.kind == "CONSTANT" or (bool(known) and all(known)))
    return found


def _softmaxes(steps: Sequence[Step], constant: Sequence[bool]) -> Iterator[tuple[str, Probabilities]]:
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


def _weighs(reader: Step, source: int, constant: Sequence[bool]) -> bool:
    """Whether a step is a product of probabilities with values, which are no constants."""
    if reader.kind != "MATRIX_MULTIPLY" or len(reader.makers) < 2 or reader.makers[0] != source:
        return False
    return reader.makers[1] is None or not constant[reader.makers[1]]


def _parts(steps: Sequence[Step], constant: Sequence[bool]) -> tuple[dict[str, str], frozenset[str]]:
    """Where nodes belong, and which of stages stand behind a whole block, by the skips of the residual stream.

    A skip goes from a step to an addition around a branch that multiplies by weights, and around no other skip's end:
    sizes of tokens, which a later stage adds to, reach over whole blocks. A branch with a softmax in it is an attention
    and begins a block; one without is the MLP of the same block. What depends on a block and is in no branch is the
    pruning that stands in it, or behind the last skip the head.
    """
    before = _before(steps)
    block, last = -1, -1
    own: dict[int, int] = {}
    ends: dict[int, int] = {}
    root: int | None = None
    for index, source, region in _skips(steps, constant, before):
        if any(steps[place].kind == "SOFTMAX" or "ATTENTION" in steps[place].kind for place in region):
            block += 1
            root = _whole(steps, source) if root is None else root
        if block >= 0:
            own.update({place: max(block, own.get(place, -1)) for place in region if place not in own})
            last = ends[block] = index
    if block < 0:
        return {}, frozenset()
    parts: dict[str, str] = {}
    behind: set[str] = set()
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
        if step.node and not constant[index] and step.node not in parts:
            parts[step.node] = part
            if part not in (HEAD, EMBEDDING) and index not in own and before[index] >> ends[above] & 1:
                behind.add(step.node)
            if part == EMBEDDING and root is not None and before[index] >> root & 1:
                behind.add(step.node)
    return parts, frozenset(behind)


def _before(steps: Sequence[Step]) -> list[int]:
    """Of each step, the steps that it depends on, as bits."""
    found: list[int] = []
    for step in steps:
        bits = 0
        for maker in step.makers:
            if maker is not None:
                bits |= found[maker] | 1 << maker
        found.append(bits)
    return found


def _skips(
    steps: Sequence[Step], constant: Sequence[bool], before: Sequence[int]
) -> Iterator[tuple[int, int, list[int]]]:
    """Of each skip where it ends, where it begins, and the steps of its branch with that end."""
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
                yield index, source, [*region, index]
                break


def _source(steps: Sequence[Step], start: int, bits: int) -> int | None:
    """The step that both a skip and its branch begin at: `start`, or what it is tokens or another type of."""
    place: int | None = start
    while place is not None and not bits >> place & 1:
        place = steps[place].makers[0] if steps[place].kind in _FEWER and steps[place].makers else None
    return place


def _whole(steps: Sequence[Step], place: int) -> int:
    """The step whose tokens a step has, or some of them."""
    above: int | None = place
    while above is not None and steps[above].kind in ("SLICE", "GATHER") and steps[above].makers:
        place, above = above, steps[above].makers[0]
    return place if above is None else above


def _weighted(step: Step, constant: Sequence[bool]) -> bool:
    """Whether a step is a product with a weight."""
    return step.kind == "MATRIX_MULTIPLY" and any(
        maker is not None and constant[maker] and min(step.shapes[index][-2:], default=0) >= _WEIGHT
        for index, maker in enumerate(step.makers)
    )
