"""The weights of a Transformer's graph, by what computes with them, in the order in which it does.

::

    x --Conv(W, b)                         the patch embedding; also the product that `passes.patch_rows` makes of it
    x --MatMul(W)--Add(b)--[Mul(g)]        a product, its bias, and the layer scale behind it
    x --Gemm(W, b)                         the same
    x --LayerNormalization(g, b)           a normalization; also the nodes that it was before opset 17

Queries, keys and values may be one product or several. Which is which, the place in the graph tells: what the scores
are made of, and what they weigh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..core.errors import UnsupportedError
from .passes.base import constant, only_consumer, producer, scalar, through
from .patches import patch_of
from .surgery import import_graph
from .weights import Weights

Kind = Literal["convolution", "product", "norm"]
_PASSED = ("Cast", "Identity", "Dropout")
_SCALED = (*_PASSED, "Mul", "Div", "Add", "Where")


@dataclass(frozen=True)
class Part:
    """What a layer has of weights.

    Attributes:
        kind: `convolution` [out, in, height, width], `product` [out, in], or `norm` [channels].
        nodes: where, by name; several where a product was made of several.
        reads: name of the value that it reads.
        weight: of the shape that PyTorch has.
        bias: [out], None where there is none.
        scale: [out], what its answer is multiplied by next; None where there is none.
        epsilon: that a normalization adds to the variance; None where the graph does not tell, and for others.
    """

    kind: Kind
    nodes: tuple[str, ...]
    reads: str
    weight: np.ndarray
    bias: np.ndarray | None
    scale: np.ndarray | None = None
    epsilon: float | None = None


def parts_of(model: onnx.ModelProto, weights: Weights | None = None) -> list[Part]:
    """A graph's weights, in its order.

    Args:
        model: constants folded, shapes inferred.
        weights: where the weights are that the model has beside it.

    Raises:
        UnsupportedError: there are none.
    """
    graph = import_graph(model, weights)
    found: dict[int, Part] = {}
    for node in graph.nodes:
        part = _part(node)
        if part is not None:
            found[id(node)] = part
    groups = [group for node in graph.nodes if (group := _attention(node, found))]
    joined = {id(group[0]): group for group in groups if len(group) > 1}
    members = {id(node) for group in joined.values() for node in group}
    parts: list[Part] = []
    for node in graph.nodes:
        part = found.get(id(node))
        group = next((one for one in joined.values() if any(each is node for each in one)), None)
        if part is None or group is None:
            parts += [] if part is None else [part]
        elif id(node) in members:  # the first of them in the graph's order stands for all
            parts.append(_together([found[id(each)] for each in group]))
            members -= {id(each) for each in group}
    if not parts:
        raise UnsupportedError("the graph has no product with a weight in it; are its weights computed?")
    return parts


def _part(node: gs.Node) -> Part | None:
    if node.op == "Conv":
        weight = constant(node.inputs[1])
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return None if weight is None else Part("convolution", (node.name,), node.inputs[0].name, weight, bias)
    if node.op in ("MatMul", "Gemm"):
        return _product(node)
    if node.op == "LayerNormalization":
        weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
        epsilon = float(node.attrs.get("epsilon", 1e-5))
        name = node.inputs[0].name
        return None if weight is None else Part("norm", (node.name,), name, weight, bias, epsilon=epsilon)
    return _old_norm(node) if node.op == "Div" else None


def _product(node: gs.Node) -> Part | None:
    matrix = constant(node.inputs[1])
    if matrix is None or matrix.ndim != 2:
        return None
    turned = node.op == "Gemm" and node.attrs.get("transB", 0)
    weight = (matrix if turned else matrix.T) * np.float32(node.attrs.get("alpha", 1.0))
    bias, out = None, node.outputs[0]
    if node.op == "Gemm" and len(node.inputs) > 2:
        given = constant(node.inputs[2])
        bias = None if given is None else given.reshape(-1) * np.float32(node.attrs.get("beta", 1.0))
    else:
        bias, out = _vector(out, "Add", len(weight))
    patch = patch_of(node.inputs[0])
    if patch is not None:
        return Part("convolution", (node.name,), node.inputs[0].name, weight.reshape(-1, *patch), bias)
    scale, _ = _vector(out, "Mul", len(weight))
    return Part("product", (node.name,), node.inputs[0].name, np.ascontiguousarray(weight), bias, scale)


def _vector(tensor: gs.Tensor, op: str, size: int) -> tuple[np.ndarray | None, gs.Tensor]:
    """A vector that is all that a tensor meets next, by an operator; and what comes of it."""
    reader = only_consumer(tensor)
    if reader is None or reader.op != op:
        return None, tensor
    values = constant(reader.inputs[1] if reader.inputs[0] is tensor else reader.inputs[0])
    if values is None or values.size != size or values.shape[-1] != size:
        return None, tensor
    return values.reshape(-1), reader.outputs[0]


def _old_norm(node: gs.Node) -> Part | None:
    """(x - mean) / Sqrt(variance + epsilon) * g + b; without g and b they are 1 and 0."""
    above, below = producer(node.inputs[0], "Sub"), producer(node.inputs[1], "Sqrt")
    if above is None or below is None or producer(above.inputs[1], "ReduceMean") is None:
        return None
    size = int(node.outputs[0].shape[-1])
    weight, out = _vector(node.outputs[0], "Mul", size)
    bias, _ = _vector(out, "Add", size)
    weight = np.ones(size, np.float32) if weight is None else weight
    added = producer(below.inputs[0], "Add")
    numbers = [scalar(tensor) for tensor in added.inputs] if added is not None else []
    epsilon = next((number for number in numbers if number is not None), None)
    return Part("norm", (node.name,), above.inputs[0].name, weight, bias, epsilon=epsilon)


def _attention(node: gs.Node, found: dict[int, Part]) -> list[gs.Node] | None:
    """The products that make queries, keys and values of an attention, in that order and each once."""
    if node.op in ("Attention", "MultiHeadAttention") and len(node.inputs) > 2:
        ends = list(node.inputs[:3])
    elif node.op == "Softmax":
        scores, values = _scores(through(node.inputs[0], *_SCALED, "Reshape")), _values(node.outputs[0])
        if scores is None or values is None:
            return None
        ends = [*scores.inputs[:2], values]
    else:
        return None
    made = [_makers(end, found) for end in ends]
    if any(len(each) != 1 for each in made):
        return None
    return list({id(each[0]): each[0] for each in made}.values())


def _scores(tensor: gs.Tensor) -> gs.Node | None:
    """The product of queries and keys; of one query it may be written as a sum."""
    summed = producer(tensor, "ReduceSum")
    return producer(tensor, "MatMul") if summed is None else producer(summed.inputs[0], "Mul")


def _values(tensor: gs.Tensor) -> gs.Tensor | None:
    """What a softmax weighs; exporters may put a guard between that replaces what is no number."""
    stack, found = [tensor], dict[str, gs.Tensor]()
    while stack:
        given = stack.pop()
        for reader in given.outputs:
            others = [each for each in reader.inputs if each is not given and not isinstance(each, gs.Constant)]
            if reader.op in ("MatMul", "Mul") and others:
                found[others[0].name] = others[0]
            elif reader.op in (*_PASSED, "IsNaN", "Where", "Transpose"):
                stack.append(reader.outputs[0])
    return next(iter(found.values())) if len(found) == 1 else None


def _makers(tensor: gs.Tensor, found: dict[int, Part]) -> list[gs.Node]:
    """The nearest products with a weight that a tensor comes from."""
    stack, seen, makers = [tensor], set[int](), list[gs.Node]()
    while stack:
        for node in stack.pop().inputs:
            if id(node) in seen:
                continue
            seen.add(id(node))
            part = found.get(id(node))
            if part is not None and part.kind == "product":
                makers.append(node)
            else:
                stack += node.inputs
    return makers


def _together(parts: Iterable[Part]) -> Part:
    """Several products of one value as one."""
    each = list(parts)
    biases = [np.zeros(len(part.weight), np.float32) if part.bias is None else part.bias for part in each]
    bias = None if all(part.bias is None for part in each) else np.concatenate(biases)
    nodes = tuple(name for part in each for name in part.nodes)
    return Part("product", nodes, each[0].reads, np.concatenate([part.weight for part in each]), bias)
