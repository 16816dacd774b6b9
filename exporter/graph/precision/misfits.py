"""Nodes that half precision would harm by the range of their numbers: beyond its largest, or among its subnormals.

::

    x --MatMul(W)-- 7e5 --Mul(1e-6)-- 0.7      one node writes what fp16 cannot hold, the other one reads it
    x --MatMul(W)-- 1e-6 --MatMul(V)-- 0.7     the same: fp16 has steps of 6e-8 there, whatever the number
    x --Q(1e-8)--DQ(1e-8)--MatMul(DQ(W8))--    the scale would be 0, and x / 0 is no number

1. What a node writes: its largest value on the calibration images, with some headroom on both sides.
2. What it reads, from whatever node: in half precision it would read a cast.
3. The constants that it multiplies with: one that rounding changes by more than it can change normal numbers.
4. The scales of Q/DQ pairs: one that rounding moves by more than half a step of int8.
5. A product with Q/DQ pairs is one unit: a cast between pair and product would keep TensorRT from joining them.

Judged are whole activations: a few small values in a large one are less than the rounding of the large ones. For the
same reason a sum or a concatenation may read what is too small, as long as what it writes is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..weights import Weights
from .float32_nodes import QDQ
from .half import LARGEST, LEAST, ROUNDOFF, Half, half_dtype
from .ranges import Extent

_JOINS = ("Add", "Sub", "Sum", "Concat")
_HALF_STEP = 1 / 256  # of int8, as a share of the largest value


@dataclass(frozen=True)
class Misfits:
    """Nodes that stay in float32 because of their numbers.

    Attributes:
        overflowing: by node, the largest value that it reads or writes, where that comes near half precision's limit.
        subnormal: by node, the smallest of what it reads, writes and multiplies with (each by its largest value), where
            that comes near half precision's subnormals.
    """

    overflowing: dict[str, float] = field(default_factory=dict)
    subnormal: dict[str, float] = field(default_factory=dict)

    @property
    def nodes(self) -> set[str]:
        """All of them."""
        return {*self.overflowing, *self.subnormal}


def misfits(
    model: onnx.ModelProto,
    extents: Mapping[str, Extent],
    half: Half,
    headroom: float,
    wide: Collection[str],
    weights: Weights | None = None,
) -> Misfits:
    """Nodes of a float32 graph that half precision would harm; see the cases above.

    Args:
        model: quantized or not.
        extents: of its activations, see `ranges.extents_of`.
        half: `fp16` or `bf16`.
        headroom: how far activations stay away from half precision's largest and least normal number, as a factor.
        wide: nodes that stay in float32 anyway; nothing is said of them.
        weights: where the weights are that the model has beside it.
    """
    judged = _Judge(model, extents, half, headroom, weights)
    found = Misfits()
    for node in model.graph.node:
        if node.name in wide:
            continue
        for too_large, value in judged(node):
            if too_large:
                found.overflowing[node.name] = max(value, found.overflowing.get(node.name, value))
            else:
                found.subnormal[node.name] = min(value, found.subnormal.get(node.name, value))
    return found


def quantized_products(model: onnx.ModelProto) -> dict[str, set[str]]:
    """By node that reads dequantized values: the nodes of the pairs that it reads through."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        dequantizing = [makers[name] for name in node.input if name in makers and makers[name].op_type == QDQ[1]]
        if node.op_type not in QDQ and dequantizing:
            quantizing = [makers[pair.input[0]] for pair in dequantizing if pair.input[0] in makers]
            found[node.name] = {pair.name for pair in (*dequantizing, *quantizing)}
    return found


def whole_units(products: Mapping[str, set[str]], nodes: Collection[str]) -> set[str]:
    """Some nodes, and with one of a quantized product's all of it (case 5); products that share a pair are one.

    Args:
        products: of `quantized_products`.
        nodes: names.
    """
    found, before = set(nodes), -1
    while len(found) > before:
        before = len(found)
        for product, pairs in products.items():
            if product in found or pairs & found:
                found |= {product, *pairs}
    return found


class _Judge:
    """What is wrong with the numbers of one node: (whether they are too large, the value)."""

    def __init__(
        self,
        model: onnx.ModelProto,
        extents: Mapping[str, Extent],
        half: Half,
        headroom: float,
        weights: Weights | None,
    ) -> None:
        self.weights = weights
        self.extents, self.half = extents, half
        self.most, self.least = LARGEST[half] / headroom, LEAST[half] * headroom
        self.constants = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        self.known: dict[tuple[str, bool], tuple[bool, float] | None] = {}

    def __call__(self, node: onnx.NodeProto) -> Iterator[tuple[bool, float]]:
        for name in (*node.input, *node.output):
            if name in self.constants:
                fault = self._constant(name, node.op_type in QDQ and name == node.input[1])
            else:
                fault = self._activation(name)
            forgiven = node.op_type in _JOINS and name in node.input
            if fault is not None and (fault[0] or not forgiven):
                yield fault

    def _activation(self, name: str) -> tuple[bool, float] | None:
        extent = self.extents.get(name)
        if extent is None:
            return None
        if extent.largest > self.most:
            return True, extent.largest
        return (False, extent.least) if 0 < extent.least < self.least else None

    def _constant(self, name: str, is_scale: bool) -> tuple[bool, float] | None:
        key = (name, is_scale)
        if key not in self.known:
            tensor = self.constants[name]
            values = self.weights.array(tensor) if self.weights else numpy_helper.to_array(tensor)
            self.known[key] = self._judged(values, is_scale)
        return self.known[key]

    def _judged(self, values: np.ndarray, is_scale: bool) -> tuple[bool, float] | None:
        sizes = np.abs(values[values != 0])
        if not sizes.size:
            return None
        if sizes.max() > LARGEST[self.half]:
            return True, float(sizes.max())
        lost = np.abs(sizes.astype(half_dtype(self.half)).astype(np.float32) - sizes)
        if is_scale:
            rough = lost > _HALF_STEP * sizes
            return (False, float(sizes[rough].min())) if rough.any() else None
        scale = sizes.max()  # or squares of small numbers would be 0
        share = np.linalg.norm(lost / scale) / np.linalg.norm(sizes / scale)
        return (False, float(scale)) if share > ROUNDOFF[self.half] else None
