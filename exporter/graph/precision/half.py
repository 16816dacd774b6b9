"""fp16 or bf16 written into a graph: casts where a node needs another type, typed initializers, nothing left to a flag.

::

    x32 --MatMul(W32)--LayerNormalization--MatMul(V32)-- y32
      =>  x32 --Cast--MatMul(W16)--Cast--LayerNormalization--Cast--MatMul(V16)--Cast-- y32

Every node is in one of two types. A value that both kinds of nodes read is cast once. Values that go from one float32
node to another stay float32: scores are never rounded on their way. Inputs and outputs stay float32 unless asked.
The opset stays: an operator that may not have the type in it (bfloat16 in a Conv before 22, either in a Q/DQ pair
before 19, any of onnxruntime's own) stays in float32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx.defs
import onnx_graphsurgeon as gs

from ...core.errors import UnsupportedError
from ..passes.base import Names, numpy_dtype
from ..passes.lower_opset import declared
from ..shapes import with_shapes
from ..surgery import export_graph, import_graph, peek
from ..weights import Weights

Half = Literal["fp16", "bf16"]
LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}
LEAST = {"fp16": 2.0**-14, "bf16": 2.0**-126}  # below it numbers are subnormal: their steps no longer shrink with them
ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8}  # what rounding changes a number by at most, of the number itself
OLDEST_QDQ = 19  # QuantizeLinear and DequantizeLinear of half precision
_TYPES = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
_TYPE_NAMES = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}


@dataclass(frozen=True)
class Typed:
    """A graph in half precision.

    Attributes:
        model: with inferred shapes.
        float32_nodes: names of the nodes that answer in float32.
        casts: how many were added.
    """

    model: onnx.ModelProto
    float32_nodes: tuple[str, ...]
    casts: int


def to_half(
    model: onnx.ModelProto,
    half: Half,
    wide: Collection[str],
    *,
    half_io: bool = False,
    weights: Weights | None = None,
) -> Typed:
    """Write half precision into a float32 graph.

    Args:
        model: with inferred shapes; it is not changed.
        half: `fp16` or `bf16`.
        wide: names of the nodes that stay in float32, see `float32_nodes.wide_nodes`.
        half_io: whether float inputs and outputs take the type, too.
        weights: where the weights are that the model has beside it; those that stay in float32 stay there.

    Raises:
        UnsupportedError: a weight is too large for the type; it is named.
    """
    opset = declared(model).version
    graph = import_graph(model, weights)
    stay = {node.name for node in graph.nodes if node.name in wide or not _may_be(node, half, opset)}
    typing = _Typing(graph, half)
    if half_io:
        for tensor in graph.inputs:
            if numpy_dtype(tensor) == np.float32:
                tensor.dtype = typing.low
    ends = {tensor.name for tensor in graph.outputs}
    float32_nodes = []
    for node in list(graph.nodes):
        low = node.name not in stay
        floats = [tensor for tensor in node.outputs if numpy_dtype(tensor) == np.float32]
        if not low and floats:
            float32_nodes.append(node.name)
        node.inputs = [typing.as_type(tensor, low) for tensor in node.inputs]
        if low and node.op == "Cast" and node.attrs.get("to") == onnx.TensorProto.FLOAT:
            node.attrs["to"] = int(_TYPES[half])
        for tensor in floats:
            if tensor.name in ends and low != half_io:
                typing.cast_end(node, tensor, low)
            elif low:
                tensor.dtype = typing.low
    graph.cleanup().toposort()
    typed = export_graph(graph, model)
    return Typed(with_shapes(typed), tuple(float32_nodes), typing.casts)


def half_dtype(half: Half) -> Any:
    """Its numpy type."""
    return np.float16 if half == "fp16" else ml_dtypes.bfloat16


def _may_be(node: gs.Node, half: Half, opset: int) -> bool:
    """Whether an operator lets every float that it reads and makes be of the type, and takes its type from them."""
    if node.domain not in (None, "", "ai.onnx"):
        return False
    if node.op != "Cast" and not any(numpy_dtype(tensor) == np.float32 for tensor in node.inputs):
        return False
    schema = onnx.defs.get_schema(node.op, opset, "")
    return all(
        _TYPE_NAMES[half] in formal[min(position, len(formal) - 1)].types  # the last one may be variadic
        for formal, given in ((schema.inputs, node.inputs), (schema.outputs, node.outputs))
        for position, tensor in enumerate(given)
        if numpy_dtype(tensor) == np.float32
    )


class _Typing:
    """The two versions of every value of one graph."""

    def __init__(self, graph: gs.Graph, half: Half) -> None:
        self.graph, self.half = graph, half
        self.low: Any = np.float16 if half == "fp16" else onnx.TensorProto.BFLOAT16
        self.names = Names(graph, half)
        self.made: dict[tuple[str, bool], gs.Tensor] = {}
        self.casts = 0

    def as_type(self, tensor: gs.Tensor, low: bool) -> gs.Tensor:
        """A tensor in the type that a node reads; integers and what has it already stay as they are."""
        if isinstance(tensor, gs.Constant):
            return self._constant(tensor) if low and numpy_dtype(tensor) == np.float32 else tensor
        is_low = tensor.dtype == self.low
        if is_low == low or not (is_low or numpy_dtype(tensor) == np.float32):
            return tensor
        key = (tensor.name, low)
        if key not in self.made:
            self.made[key] = self._cast(tensor, low)
        return self.made[key]

    def _constant(self, tensor: gs.Constant) -> gs.Tensor:
        key = (tensor.name, True)
        if key not in self.made:
            values = peek(tensor)
            largest = float(np.abs(values).max(initial=0))
            if not largest <= LARGEST[self.half]:
                raise UnsupportedError(f"the weight {tensor.name} holds {largest:.3g}, which {self.half} cannot")
            self.made[key] = gs.Constant(self.names(tensor.name), values.astype(half_dtype(self.half)))
        return self.made[key]

    def _cast(self, tensor: gs.Tensor, low: bool) -> gs.Tensor:
        dtype = self.low if low else np.float32
        out = gs.Variable(self.names(f"{tensor.name}_{self.half if low else 'fp32'}"), dtype=dtype, shape=tensor.shape)
        self._node(tensor, out, low)
        return out

    def cast_end(self, node: gs.Node, tensor: gs.Tensor, low: bool) -> None:
        """An output of the graph has another type than its node, which writes a new value that all others read."""
        dtype, name = (self.low, self.half) if low else (np.float32, "fp32")
        own = gs.Variable(self.names(f"{tensor.name}_{name}"), dtype=dtype, shape=tensor.shape)
        readers = list(tensor.outputs)
        node.outputs[node.outputs.index(tensor)] = own
        for reader in readers:
            reader.inputs = [own if value is tensor else value for value in reader.inputs]
        tensor.dtype = np.float32 if low else self.low
        self._node(own, tensor, not low)

    def _node(self, source: gs.Tensor, out: gs.Tensor, low: bool) -> None:
        self.casts += 1
        to = int(_TYPES[self.half]) if low else int(onnx.TensorProto.FLOAT)
        name = self.names(f"cast_{source.name}")
        self.graph.nodes.append(gs.Node("Cast", name, {"to": to}, [source], [out]))
