"""What can be proved about an index tensor by looking up the graph: one position a token, never negative, no repeats.

A gather or scatter may only be rewritten where its index is known to mean the same in the new form: an index of -1
is the last token of its own image, but the last token of the image before once images are laid end to end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, constant, producer, scalar, static_shape, through

# Operators whose result holds only values of their first input.
_SELECTING = frozenset(
    {"Cast", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "ReduceMax", "ReduceMin"}
    | {"Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_COMBINING = frozenset({"Add", "Concat", "Max", "Min", "Mul", "Sum"})  # not negative if no input is
_POSITIVE = frozenset({"Abs", "ArgMax", "ArgMin", "NonZero", "Relu", "Shape", "Sigmoid", "Size", "Softmax"})
_RESHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_DEPTH = 40


@dataclass(frozen=True)
class TokenIndex:
    """One position a token.

    Attributes:
        source: tensor or constant that holds the positions, image by image.
        shared: whether all images have the same positions; `source` then holds one image's.
        lead: images, that is the product of the dimensions before the token axis.
        count: positions an image.
    """

    source: gs.Tensor | np.ndarray
    shared: bool
    lead: int
    count: int

    @property
    def images(self) -> int:
        """Images that `source` holds positions for."""
        return 1 if self.shared else self.lead

    def tensor(self, build: Builder, shape: list[int]) -> gs.Tensor:
        """The positions as a tensor of a shape."""
        if isinstance(self.source, np.ndarray):
            return build.const(self.source.reshape(shape), self.source.dtype, "index")
        if static_shape(self.source) == shape:
            return self.source
        target = build.const(shape, "int64", "shape")
        return build.node("Reshape", [self.source, target], shape, self.source.dtype or np.int64)

    @property
    def dtype(self) -> np.dtype:
        """Integer type of the positions."""
        return np.dtype(self.source.dtype or np.int64)

    def non_negative(self) -> bool:
        """Whether no position can be negative."""
        return _never_negative(self.source) if isinstance(self.source, gs.Tensor) else bool((self.source >= 0).all())

    def distinct(self, tokens: int) -> bool:
        """Whether no image can name a token twice; `tokens` per image."""
        if isinstance(self.source, np.ndarray):
            rows = (self.source % tokens).reshape(self.images, self.count)
            return all(len(np.unique(row)) == self.count for row in rows)
        return self.count == 1 or _distinct(self.source, self.count)


def of_constant(value: np.ndarray, lead: int, count: int) -> TokenIndex:
    """Positions known beforehand, [lead, count]."""
    rows = value.reshape(lead, count)
    shared = bool((rows == rows[:1]).all())
    return TokenIndex(np.ascontiguousarray(rows[:1] if shared else rows), shared, lead, count)


def token_index(index: gs.Tensor, axis: int) -> TokenIndex | None:
    """The positions under an index [lead.., count, tail..] that is the same all over the tail, else None."""
    shape = static_shape(index)
    if shape is None or not 0 <= axis < len(shape):
        return None
    lead, count = math.prod(shape[:axis]), shape[axis]
    value = constant(index)
    if value is not None:
        flat = value.reshape(lead * count, -1)
        return of_constant(flat[:, 0], lead, count) if flat.size and (flat == flat[:, :1]).all() else None
    source = index
    while (node := producer(source, "Expand")) is not None:
        source = node.inputs[0]
    narrow = static_shape(source)
    if narrow is None or len(narrow) > len(shape):
        return None
    narrow = [1] * (len(shape) - len(narrow)) + narrow
    if narrow[axis] != count or math.prod(narrow[axis + 1 :]) != 1:
        return None
    if narrow[:axis] != shape[:axis] and math.prod(narrow[:axis]) != 1:
        return None
    value = constant(source)
    images = math.prod(narrow[:axis])
    if value is not None:
        return of_constant(np.broadcast_to(value.reshape(images, count), (lead, count)), lead, count)
    return TokenIndex(through(source, *_RESHAPING), images == 1, lead, count)


def paired_index(index: gs.Tensor, batch: int) -> TokenIndex | None:
    """The positions under an index [batch, count, 2] whose first column is the image itself, else None."""
    shape = static_shape(index)
    if shape is None or len(shape) != 3 or shape[0] != batch or shape[2] != 2:
        return None
    images, count = np.arange(batch).reshape(batch, 1), shape[1]
    value = constant(index)
    if value is not None:
        return of_constant(value[..., 1], batch, count) if (value[..., 0] == images).all() else None
    concat = producer(index, "Concat")
    if concat is None or len(concat.inputs) != 2 or int(concat.attrs.get("axis", 0)) not in (-1, 2):
        return None
    first = token_index(concat.inputs[0], 1)
    if first is None or not isinstance(first.source, np.ndarray):
        return None
    rows = np.broadcast_to(first.source.reshape(first.images, -1), (batch, count))
    return token_index(concat.inputs[1], 1) if (rows == images).all() else None


def _never_negative(tensor: gs.Tensor, depth: int = 0) -> bool:
    value = constant(tensor)
    if value is not None:
        return bool((value >= 0).all())
    node = producer(tensor)
    if node is None or depth > _DEPTH:
        return False
    if tensor.dtype is not None and np.dtype(tensor.dtype) == np.bool_:
        return True
    if node.op == "TopK":
        return tensor is node.outputs[1] or _never_negative(node.inputs[0], depth + 1)
    if node.op in _POSITIVE:
        return True
    if node.op == "Mod":  # the sign follows the divisor
        divisor = constant(node.inputs[1])
        return divisor is not None and bool((divisor > 0).all()) and not node.attrs.get("fmod", 0)
    if node.op == "Where":
        return all(_never_negative(part, depth + 1) for part in node.inputs[1:])
    if node.op in _SELECTING:
        return _never_negative(node.inputs[0], depth + 1)
    return node.op in _COMBINING and all(_never_negative(part, depth + 1) for part in node.inputs)


def _distinct(tensor: gs.Tensor, count: int, depth: int = 0) -> bool:
    """Whether each row of `count` values has no repeats: it comes from TopK's indices, moved or sorted at most."""
    tensor = through(tensor, *_RESHAPING, "Identity")
    node, shape = producer(tensor), static_shape(tensor)
    if node is None or shape is None or depth > _DEPTH:
        return False
    if node.op == "TopK":
        axis = int(node.attrs.get("axis", -1)) % len(shape)
        if math.prod(shape[axis + 1 :]) != 1:
            return False
        before = static_shape(node.inputs[0])
        whole = before is not None and _distinct(node.inputs[0], before[axis], depth + 1)
        return shape[axis] == count and (tensor is node.outputs[1] or whole)
    if node.op == "Cast":
        kinds = [np.dtype(value.dtype).kind for value in (tensor, node.inputs[0]) if value.dtype is not None]
        return kinds == ["i", "i"] and _distinct(node.inputs[0], count, depth + 1)
    if node.op == "Slice" and shape[-1] == count:  # a part of a row without repeats
        before = static_shape(node.inputs[0])
        return before is not None and _distinct(node.inputs[0], before[-1], depth + 1)
    if node.op in ("Add", "Sub"):
        moved, step = node.inputs
        return scalar(step) is not None and _distinct(moved, count, depth + 1)
    return False
