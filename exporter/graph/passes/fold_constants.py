"""Constants computed beforehand, dead nodes removed, equal weights held once.

::

    const --Op--\\                                   w1 == w2:  a --MatMul(w1)--\\            a --MatMul(w1)--\\
    const -------Op-- y   =>   y (initializer)                  b --MatMul(w2)--  =>        b --MatMul(w1)--

1. nodes whose inputs are all constant; a result above 16 MB stays computed, so that no file swells;
2. nodes and weights that no output needs;
3. weights of equal type, shape and bytes;
4. an output that became a constant gets an Identity: an ONNX output needs a producer.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime

from .base import Names

LARGEST = 16 * 2**20


def fold(graph: gs.Graph) -> int:
    """Fold in place.

    Returns:
        nodes removed and weights shared; 0 means that the graph is as it was.
    """
    before = _nodes(graph)
    onnxruntime.set_default_logger_severity(3)  # folding runs small graphs, whose warnings would reach the user
    try:
        graph.fold_constants(size_threshold=LARGEST)
    finally:
        onnxruntime.set_default_logger_severity(2)
    name_outputs(graph)
    shared = share_weights(graph)
    graph.cleanup().toposort()
    return (before - _nodes(graph)).total() + shared


def _nodes(graph: gs.Graph) -> Counter[tuple[str, ...]]:
    return Counter((node.op, *(out.name for out in node.outputs)) for node in graph.nodes)


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
    first: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
    copies = 0
    for tensor in graph.tensors().values():
        if not isinstance(tensor, gs.Constant) or not isinstance(tensor.dtype, (np.dtype, type)):
            continue
        value = np.asarray(tensor.values)
        digest = hashlib.blake2b(value.tobytes(), digest_size=16).digest()
        kept = first.setdefault((value.dtype.str, value.shape, digest), tensor)
        if kept is tensor:
            continue
        copies += 1
        for reader in list(tensor.outputs):
            reader.inputs = [kept if value is tensor else value for value in reader.inputs]
    return copies
