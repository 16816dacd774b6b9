"""Which nodes stay in float32 when a graph goes to half precision.

::

    keys --Mul--ReduceSum--...--TopK        scores: everything between a projection and a TopK
    sizes --Log--+
    q @ k' ------Add--Softmax               softmax, and what is added to its logits, but not the product
    x --ReduceMean--Sub--...--Div--Mul      normalization, whole or in primitives

1. normalizations and softmaxes by operator, those in primitives by the names that the lowering pass gives;
2. reductions (sums, means, norms) and operators with a wide range, such as Exp;
3. the way from a projection to every TopK: token scores, variances, similarities, power iterations;
4. the way from pixels to the embedded tokens: their weights are too small, and their sums too large, for fp16;
5. the way from a projection to what is added to a softmax's logits: log(size) of merged tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_graphsurgeon as gs

from ..passes.lower import NORM, RUNNING_SUM

NORMALIZATIONS = frozenset(
    {"LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "Softmax", "LogSoftmax"}
)
_WIDE = frozenset({"Exp", "Log", "CumSum", "Pow", "Sqrt", "Reciprocal", "TopK", "ArgMax", "ArgMin"})


def is_projection(node: gs.Node) -> bool:
    """A product with a trained weight: where the way up from a score ends; sums written as products are none."""
    if node.op in ("Gemm", "Conv"):
        return True
    if node.op != "MatMul" or node.name.startswith(f"{RUNNING_SUM}_"):
        return False
    shapes = (tensor.values.shape for tensor in node.inputs if isinstance(tensor, gs.Constant))
    return any(len(shape) == 2 and min(shape) > 1 for shape in shapes)


def wide_nodes(graph: gs.Graph) -> set[str]:
    """Names of the nodes that stay in float32, whatever their activations."""
    wide = {node.name for node in graph.nodes if _by_itself(node)}
    for image in graph.inputs:
        if image.dtype == np.uint8:
            wide |= {node.name for node in _embedding(image)}
    for node in graph.nodes:
        if node.op in ("TopK", "ArgMax", "ArgMin"):
            wide |= {above.name for above in _way_up(node.inputs[:1])}
        if node.op == "Softmax":
            added = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
            if added is not None and added.op == "Add":
                wide.add(added.name)
                products = [t for t in added.inputs if t.inputs and t.inputs[0].op == "MatMul"]
                wide |= {above.name for above in _way_up(t for t in added.inputs if t not in products[:1])}
    return wide


def _by_itself(node: gs.Node) -> bool:
    """Cases 1 and 2."""
    return node.op in NORMALIZATIONS | _WIDE or node.op.startswith("Reduce") or node.name.startswith(f"{NORM}_")


def _embedding(image: gs.Tensor) -> Iterator[gs.Node]:
    """Every node from an image to the first sum behind the product that embeds it."""
    tensor, embedded = image, False
    while len(tensor.outputs) == 1:
        node = tensor.outputs[0]
        yield node
        embedded = embedded or is_projection(node)
        if embedded and node.op == "Add":
            return
        tensor = node.outputs[0]


def _way_up(tensors: Iterable[gs.Tensor]) -> Iterator[gs.Node]:
    """Every node above some tensors up to the projections, softmaxes and normalizations, which are left out."""
    stack, seen = list(tensors), set()
    while stack:
        for node in stack.pop().inputs:
            if id(node) in seen or is_projection(node) or node.op in NORMALIZATIONS or node.op == "Attention":
                continue
            seen.add(id(node))
            yield node
            stack += [tensor for tensor in node.inputs if not isinstance(tensor, gs.Constant)]
