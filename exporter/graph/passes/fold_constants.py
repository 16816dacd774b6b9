"""Constants computed beforehand, dead nodes removed, equal weights held once.

::

    const --Op--\\                                   w1 == w2:  a --MatMul(w1)--\\            a --MatMul(w1)--\\
    const -------Op-- y   =>   y (initializer)                  b --MatMul(w2)--  =>        b --MatMul(w1)--

1. nodes whose inputs are all constant; a result above 16 MB stays computed, so that no file swells;
2. nodes and weights that no output needs;
3. weights of equal type, shape and bytes;
4. an output that became a constant gets an Identity: an ONNX output needs a producer;
5. `Shape` of a static value, `start` and `end` too, which onnx-graphsurgeon passes over.

Of the weights beside the graph only those are read that 1 computes with, or that are of the type and shape of one in
the graph: equal ones beside it are in one place, as their store wrote them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from ..surgery import AsideValues, aside, export_graph, peek
from .base import Context, Names, Pass, PassReport, producer, static_shape

LARGEST = 16 * 2**20
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")  # never folded


@dataclass(frozen=True)
class Fold(Pass):
    """Cases 1 to 5, under the name of its place in the line."""

    name: str

    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """See `Pass`."""
        graph = context.last.take(model, context.weights)
        report = PassReport(self.name, fold(graph))
        if not report.count:
            return model, report  # its nodes may have another order in the graph
        model = export_graph(graph, model)
        context.last.leave(model, graph)
        return model, report


def fold(graph: gs.Graph) -> int:
    """Fold in place.

    Returns:
        nodes removed and weights shared; 0 means that the graph is as it was.
    """
    before = _nodes(graph)
    known_shapes(graph)
    computable = list(_computable(graph))
    if computable or graph.functions or any(map(_left_out, graph.nodes)):  # to ask for it copies the whole graph
        _compute(graph, computable)
    name_outputs(graph)
    shared = share_weights(graph)
    graph.cleanup().toposort()
    return (before - _nodes(graph)).total() + shared


def _computable(graph: gs.Graph) -> Iterator[gs.Node]:
    """Nodes that are made of constants alone, in order."""
    known: set[str] = set()
    for node in graph.nodes:
        needed = (tensor for tensor in node.inputs if not tensor.is_empty())
        if node.op in _QUANTIZED or not all(isinstance(each, gs.Constant) or each.name in known for each in needed):
            continue
        known.update(out.name for out in node.outputs)
        yield node


def _left_out(node: gs.Node) -> bool:
    """Whether onnx-graphsurgeon may do without a node: a Shape, branches, a Cast before and after another node."""
    if node.op == "Cast":
        middle = producer(node.inputs[0])
        return middle is not None and any(producer(tensor, "Cast") for tensor in middle.inputs)
    return node.op == "Shape" or any(True for _ in node.subgraphs())


def _compute(graph: gs.Graph, computable: list[gs.Node]) -> None:
    """Case 1."""
    onnxruntime.set_default_logger_severity(3)  # folding runs small graphs, whose warnings would reach the user
    try:
        with _taken_in(computable):
            graph.fold_constants(size_threshold=LARGEST)
    finally:
        onnxruntime.set_default_logger_severity(2)


def known_shapes(graph: gs.Graph) -> None:
    """Case 5."""
    for node in [node for node in graph.nodes if node.op == "Shape"]:
        shape = static_shape(node.inputs[0])
        if shape is None or node.outputs[0] in graph.outputs:
            continue
        part = shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        node.outputs[0].to_constant(np.array(part, dtype=np.int64))
        node.outputs.clear()


def _nodes(graph: gs.Graph) -> Counter[tuple[str, ...]]:
    return Counter((node.op, *(out.name for out in node.outputs)) for node in graph.nodes)


@contextmanager
def _taken_in(computable: list[gs.Node]) -> Iterator[None]:
    """Weights beside the graph that constants are computed from are in it meanwhile."""
    held: list[tuple[gs.Constant, AsideValues, np.ndarray]] = []
    for node in computable:
        for tensor in node.inputs:
            values = aside(tensor)
            if values is not None:
                tensor.values = values.load()
                held.append((tensor, values, tensor.values))
    try:
        yield
    finally:
        for tensor, values, loaded in held:
            if tensor.values is loaded:
                tensor.values = values


def name_outputs(graph: gs.Graph) -> None:
    """Case 4."""
    names = Names(graph, "constant")
    for position, out in enumerate(graph.outputs):
        if not isinstance(out, gs.Constant):
            continue
        value = np.asarray(out.values)
        held = gs.Constant(names("output"), value)
        fresh = gs.Variable(out.name, dtype=value.dtype, shape=list(value.shape))
        for reader in list(out.outputs):
            reader.inputs = [held if tensor is out else tensor for tensor in reader.inputs]
        graph.nodes.append(gs.Node("Identity", names("Identity"), inputs=[held], outputs=[fresh]))
        graph.outputs[position] = fresh


def share_weights(graph: gs.Graph) -> int:
    """Case 3: readers of a weight's copies read the first of them.

    Returns:
        copies that nobody reads any more.
    """
    constants = [tensor for tensor in graph.tensors().values() if isinstance(tensor, gs.Constant)]
    plain = [tensor for tensor in constants if isinstance(tensor.dtype, (np.dtype, type))]
    inside = {_kind(tensor) for tensor in plain if aside(tensor) is None}
    first: dict[Hashable, gs.Constant] = {}
    copies = 0
    for tensor in plain:
        values = aside(tensor)
        content: Hashable = values.place if values is not None and _kind(tensor) not in inside else _digest(tensor)
        kept = first.setdefault((_kind(tensor), content), tensor)
        if kept is tensor:
            continue
        copies += 1
        for reader in list(tensor.outputs):
            reader.inputs = [kept if value is tensor else value for value in reader.inputs]
    return copies


def _kind(tensor: gs.Constant) -> tuple[str, tuple[int, ...]]:
    return np.dtype(tensor.dtype).str, tuple(tensor.shape)


def _digest(tensor: gs.Constant) -> bytes:
    return hashlib.sha256(peek(tensor).tobytes()).digest()


FOLD, FOLD_AGAIN = Fold("constants folded"), Fold("constants folded again")
