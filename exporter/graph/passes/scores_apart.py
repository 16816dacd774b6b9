"""An attention matrix that token scores read, computed once more beside the attention, which TensorRT then fuses.

::

    q --Mul(s)--MatMul--Softmax--+--MatMul(v)--            q --Mul(s)--MatMul--Softmax--MatMul(v)--
    k --Transpose--/             +--scores            =>   k --Transpose--/
                                                           k ----------MatMul--Softmax(-2)--Transpose--scores
                                                           q s--Transpose--/

TensorRT fuses product, softmax and product into one kernel only where nothing else reads the matrix. The second one
has keys as rows: written like the first, it would be found equal and the two made one again. Scores that sum over
queries take rows of it as they lie.

1. what the softmax gets is the product, or the product and a bias;
2. one reader is a product with values; there are others;
3. all others are sums over queries, weighted by a row: where their number is odd, queries of zeros make it a multiple
   of 8, and weigh 0; with an even one TensorRT turns the longer product by a kernel of its own.

In float32 TensorRT fuses no attention, so there is nothing to gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from .base import Builder, Context, PatternPass, constant, producer, static_shape

LOGITS = "apart"  # names of the nodes before the second softmax begin so: they round as the first one's do
MULTIPLE = 8  # rows of an odd length are made a multiple of it: TensorRT pads and copies them otherwise
_TURN = [0, 1, 3, 2]


@dataclass(frozen=True)
class Match:
    """A softmax with readers beside the attention.

    Attributes:
        softmax: the node.
        product: the MatMul behind it.
        keys: its right factor before it is transposed, [batch, heads, keys, width].
        bias: what is added to it; None: nothing.
        readers: of the matrix, but for the product with values.
    """

    softmax: gs.Node
    product: gs.Node
    keys: gs.Tensor
    bias: gs.Tensor | None
    readers: tuple[gs.Node, ...]


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Cases 1 to 3."""
    matrix = node.outputs[0]
    shape = static_shape(matrix)
    if shape is None or len(shape) != 4 or min(shape[2:]) < 2 or int(node.attrs.get("axis", -1)) not in (-1, 3):
        return None
    applied = [reader for reader in matrix.outputs if reader.op == "MatMul" and reader.inputs[0] is matrix]
    applied = [reader for reader in applied if static_shape(reader.inputs[1]) not in (None, shape)]
    readers = tuple(reader for reader in matrix.outputs if reader not in applied[:1])
    if not applied or not readers:
        return None
    if matrix.name in context.outputs:
        return "the matrix is an output"
    added, bias = producer(node.inputs[0], "Add"), None
    product = producer(node.inputs[0], "MatMul")
    if added is not None:
        for logits, other in (added.inputs, added.inputs[::-1]):
            if (found := producer(logits, "MatMul")) is not None:
                product, bias = found, other
    if product is None:
        return "its logits are no product"
    keys = producer(product.inputs[1], "Transpose")
    if keys is None or list(keys.attrs.get("perm", [])) != _TURN:
        return "its keys are not transposed in the plain way"
    if bias is not None and len(static_shape(bias) or []) != 4:
        return "its bias has not four known dimensions"
    return Match(node, product, keys.inputs[0], bias, readers)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Turn everything."""
    build, beside, matrix = Builder(graph, LOGITS), Builder(graph, "scores"), found.softmax.outputs[0]
    dtype, shape = matrix.dtype, static_shape(matrix)
    assert shape is not None
    *lead, queries, keys = shape
    spare = -queries % MULTIPLE if queries % 2 and all(_sums(reader, matrix) for reader in found.readers) else 0
    columns = [*lead, keys, queries + spare]
    asked = _longer(build, _turned(build, found.product.inputs[0]), spare)
    logits = build.node("MatMul", [found.keys, asked], columns, dtype)
    if found.bias is not None:
        logits = build.node("Add", [logits, _longer(build, _turned(build, found.bias), spare)], columns, dtype)
    own = _turned(beside, beside.node("Softmax", [logits], columns, dtype, axis=2))
    for reader in found.readers:
        if spare:
            reader.inputs[0] = _longer(beside, reader.inputs[0], spare)
        reader.inputs = [own if tensor is matrix else tensor for tensor in reader.inputs]


def _sums(reader: gs.Node, matrix: gs.Tensor) -> bool:
    """Whether a reader sums the matrix over queries, weighted by a row."""
    row = static_shape(reader.inputs[0])
    return reader.op == "MatMul" and reader.inputs[1] is matrix and row is not None and row[-2] == 1


def _turned(build: Builder, tensor: gs.Tensor) -> gs.Tensor:
    size = static_shape(tensor)
    assert size is not None
    return build.node("Transpose", [tensor], [*size[:2], size[3], size[2]], tensor.dtype, perm=_TURN)


def _longer(build: Builder, tensor: gs.Tensor, spare: int) -> gs.Tensor:
    """The tensor with some zeros at the end of its last axis; a single value for all stays one."""
    size = static_shape(tensor)
    assert size is not None
    if not spare or size[-1] == 1:
        return tensor
    zeros = np.zeros([*size[:-1], spare])
    value = constant(tensor)
    if value is not None:
        return build.const(np.concatenate([value, zeros], axis=-1), value.dtype)
    ends = build.const(zeros, tensor.dtype, "zeros")
    return build.node("Concat", [tensor, ends], [*size[:-1], size[-1] + spare], tensor.dtype, axis=len(size) - 1)


SCORES_APART = PatternPass(
    "scores read a matrix of their own",
    frozenset({"Softmax"}),
    match,
    apply,
    lambda context: context.for_tensorrt and context.precision != "fp32",
)
