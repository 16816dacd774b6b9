"""fp16 or bf16 written into a graph: casts where a node needs another type, typed initializers, nothing left to a flag.

::

    x32 --MatMul(W32)--LayerNormalization--MatMul(V32)-- y32
      =>  x32 --Cast--MatMul(W16)--Cast--LayerNormalization--Cast--MatMul(V16)--Cast-- y32

Every node is in one of two types. A value that both kinds of nodes read is cast once. Values that go from one float32
node to another stay float32: scores are never rounded on their way. Inputs and outputs stay float32 unless asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..errors import UnsupportedError
from ..passes.base import Names, numpy_dtype
from ..passes.opset import declared, raise_to
from ..passes.pipeline import export_graph, with_shapes

Half = Literal["fp16", "bf16"]
LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}
OLDEST_QDQ = 19  # QuantizeLinear and DequantizeLinear of half precision
OLDEST_BF16 = 22  # the other operators of a ViT take bfloat16 by then
_TYPES = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


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


def to_half(model: onnx.ModelProto, half: Half, wide: Collection[str], *, half_io: bool = False) -> Typed:
    """Write half precision into a float32 graph.

    Args:
        model: with inferred shapes; it is not changed.
        half: `fp16` or `bf16`; the latter raises the opset to 22.
        wide: names of the nodes that stay in float32, see `wide.wide_nodes`.
        half_io: whether float inputs and outputs take the type, too.

    Raises:
        UnsupportedError: a node cannot have the type in the graph's opset.
    """
    if half == "bf16":
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        raise_to(copied, OLDEST_BF16)
        model = copied
    opset = declared(model).version
    graph = gs.import_onnx(model)
    wide = set(wide)
    for node in graph.nodes:
        if node.op in _QDQ and (opset < OLDEST_QDQ or node.op == "DynamicQuantizeLinear"):
            wide.add(node.name)
    typing = _Typing(graph, half)
    if half_io:
        for tensor in graph.inputs:
            if numpy_dtype(tensor) == np.float32:
                tensor.dtype = typing.low
    ends = {tensor.name for tensor in graph.outputs}
    float32_nodes = []
    for node in list(graph.nodes):
        low = node.name not in wide
        floats = [tensor for tensor in node.outputs if numpy_dtype(tensor) == np.float32]
        if not low and floats:
            float32_nodes.append(node.name)
        node.inputs = [typing.as_type(tensor, low) for tensor in node.inputs]
        if not low:
            continue
        if node.op == "Cast" and node.attrs.get("to") == onnx.TensorProto.FLOAT:
            node.attrs["to"] = int(_TYPES[half])
        for tensor in floats:
            if tensor.name in ends and not half_io:
                typing.cast_back(node, tensor)
            else:
                tensor.dtype = typing.low
    graph.cleanup().toposort()
    typed = export_graph(graph, model)
    return Typed(with_shapes(typed), tuple(float32_nodes), typing.casts)


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
            return self._constant(tensor) if low and tensor.values.dtype == np.float32 else tensor
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
            values = tensor.values
            largest = float(np.abs(values).max(initial=0))
            if largest > LARGEST[self.half]:
                raise UnsupportedError(f"the weight {tensor.name} holds {largest:.3g}, which {self.half} cannot")
            dtype = np.float16 if self.half == "fp16" else ml_dtypes.bfloat16
            self.made[key] = gs.Constant(self.names(tensor.name), values.astype(dtype))
        return self.made[key]

    def _cast(self, tensor: gs.Tensor, low: bool) -> gs.Tensor:
        dtype = self.low if low else np.float32
        out = gs.Variable(self.names(f"{tensor.name}_{self.half if low else 'fp32'}"), dtype=dtype, shape=tensor.shape)
        self._node(tensor, out, low)
        return out

    def cast_back(self, node: gs.Node, tensor: gs.Tensor) -> None:
        """An output of the graph stays float32: the node writes a new value, which is cast to it and read by others."""
        own = gs.Variable(self.names(f"{tensor.name}_{self.half}"), dtype=self.low, shape=tensor.shape)
        readers = list(tensor.outputs)
        node.outputs[node.outputs.index(tensor)] = own
        for reader in readers:
            reader.inputs = [own if value is tensor else value for value in reader.inputs]
        self._node(own, tensor, False)

    def _node(self, source: gs.Tensor, out: gs.Tensor, low: bool) -> None:
        self.casts += 1
        to = int(_TYPES[self.half]) if low else int(onnx.TensorProto.FLOAT)
        name = self.names(f"cast_{source.name}")
        self.graph.nodes.append(gs.Node("Cast", name, {"to": to}, [source], [out]))
