"""One scale per attention, and keys transposed once.

The exporter splits the attention scale over both factors and transposes the keys through a 3-D detour::

    q --Mul(sqrt s)--------------------------------\\                     q --Mul(s)--------------\\
                                                    MatMul      =>                                 MatMul
    k --Reshape--Transpose--Reshape--Mul(sqrt s)---/                     k --Transpose(0,1,3,2)---/

1. both factors of a MatMul are scaled by a scalar constant: one Mul on the left stays;
2. the right factor is a batch of matrices transposed by way of three dimensions: one Transpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, producer, scalar, static_shape


@dataclass(frozen=True)
class Scales:
    """A product whose factors are both scaled.

    Attributes:
        product: the MatMul.
        left, right: its factors before they are scaled.
        scale: of both together.
    """

    product: gs.Node
    left: gs.Tensor
    right: gs.Tensor
    scale: float


@dataclass(frozen=True)
class Detour:
    """Matrices transposed by way of three dimensions.

    Attributes:
        last: the node that ends it.
        source: [batch, heads, rows, columns].
        shape: of the result.
    """

    last: gs.Node
    source: gs.Tensor
    shape: list[int]


def _scaled(tensor: gs.Tensor) -> tuple[gs.Tensor, float] | None:
    node = producer(tensor, "Mul")
    if node is None:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        factor = scalar(other)
        if factor is not None:
            return value, factor
    return None


def match_scales(node: gs.Node, context: Context) -> Scales | str | None:
    """Case 1."""
    left, right = _scaled(node.inputs[0]), _scaled(node.inputs[1])
    if left is None or right is None:
        return None
    if any(len(tensor.outputs) != 1 for tensor in node.inputs):
        return "a scaled factor is read elsewhere too"
    return Scales(node, left[0], right[0], left[1] * right[1])


def apply_scales(graph: gs.Graph, found: Scales, context: Context) -> None:
    """Scale the left factor by the product."""
    build, node = Builder(graph, "scale"), found.product
    dtype = node.inputs[0].dtype or np.float32
    factor = build.const(found.scale, dtype, "factor")
    node.inputs[0] = build.node("Mul", [found.left, factor], static_shape(found.left), dtype)
    node.inputs[1] = found.right


def match_transpose(node: gs.Node, context: Context) -> Detour | str | None:
    """Case 2."""
    inner = producer(node.inputs[0], "Transpose")
    if inner is None or list(inner.attrs.get("perm", [])) != [0, 2, 1]:
        return None
    outer = producer(inner.inputs[0], "Reshape")
    if outer is None:
        return None
    source, result = static_shape(outer.inputs[0]), static_shape(node.outputs[0])
    if source is None or result is None or len(source) != 4 or len(result) != 4:
        return None
    if [source[0], source[1], source[3], source[2]] != result:
        return "the reshapes do more than transpose the last two dimensions"
    return Detour(node, outer.inputs[0], result)


def apply_transpose(graph: gs.Graph, found: Detour, context: Context) -> None:
    """Transpose the last two dimensions directly."""
    out = found.last.outputs[0]
    found.last.outputs.clear()
    build = Builder(graph, "keys")
    build.node("Transpose", [found.source], found.shape, out.dtype, out, perm=[0, 1, 3, 2])


ONE_SCALE = PatternPass("one scale per attention", frozenset({"MatMul"}), match_scales, apply_scales)
DIRECT_TRANSPOSE = PatternPass("keys transposed once", frozenset({"Reshape"}), match_transpose, apply_transpose)
