"""Which nodes stay in float32 when a graph goes to half precision.

::

    keys --Mul--ReduceSum--...--TopK        scores: everything between a projection and a TopK
    sizes --Log--+
    q @ k' ------Add--Softmax               softmax, and what is added to its logits, but not the product
    x --ReduceMean--Sub--...--Div--Mul      normalization, whole or in primitives

1. normalizations and softmaxes by operator, those in primitives by the names that the lowering pass gives;
2. reductions (sums, means, norms), operators with a wide range such as Exp, integers that become floats (ids above
   2048 are no fp16 numbers), and scalars that fp16 cannot hold, such as the 1e-12 that keeps a division finite;
3. the way from a projection with its bias, or from the tokens between two blocks' halves, to every TopK and comparison
   (token scores, variances, similarities, power iterations), and whatever else reaches the logits as a decision only,
   but for projections and the logits of a second attention matrix;
4. the way from pixels to the embedded tokens: their weights are too small, and their sums too large, for fp16;
5. the way from a projection to what is added to a softmax's logits: log(size) of merged tokens.

Where the runtime computes a softmax in float32 whatever its type, one that only attention reads need not be: OpenVINO
then runs product, softmax and product as one. There, what only moves numbers is as narrow as they are, too: a cast
behind a reshape, a transpose or a gather gives the same ones. So what moves the image alone stays in float32, which
OpenVINO cuts into patches faster. TensorRT casts and moves in one kernel anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np
import onnx_graphsurgeon as gs

from ..passes.base import numpy_dtype, scalar, through
from ..passes.lower_operators import NORM
from ..passes.scores_apart import LOGITS

QDQ = ("QuantizeLinear", "DequantizeLinear")
NORMALIZATIONS = frozenset(
    {"LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "Softmax", "LogSoftmax"}
)
Reason = Literal["scores", "sizes", "normalizations", "ranges", "embedding"]
_WIDE = frozenset({"Exp", "Log", "CumSum", "Pow", "Sqrt", "Reciprocal", "TopK", "ArgMax", "ArgMin"})
_MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice"}
)
_MOVES |= {"Split", "Squeeze", "Transpose", "Unsqueeze"}
_DECISIONS = frozenset({"TopK", "ArgMax", "ArgMin", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


def is_projection(node: gs.Node) -> bool:
    """A product with a weight, quantized or not: where the way up from a score ends.

    Scores have products with constants, too (sums, running sums): those carry nothing, see `carrying_nodes`.
    """
    if node.op in ("Gemm", "Conv"):
        return True
    if node.op != "MatMul":
        return False
    weight = through(node.inputs[1], *QDQ)
    return isinstance(weight, gs.Constant) and len(weight.shape) > 1


def carrying_nodes(graph: gs.Graph) -> set[str]:
    """Names of the nodes whose numbers reach the first output (the logits) as numbers; the others only decide."""
    stack, found = [graph.outputs[0]], set()
    while stack:
        for node in stack.pop().inputs:
            if node.name not in found:
                found.add(node.name)
                stack += [tensor for tensor in node.inputs if node.op in QDQ or _is_float(tensor)]
    return found


def wide_nodes(graph: gs.Graph, inner_float32: bool = False) -> set[str]:
    """Names of the nodes that stay in float32, whatever their activations.

    Args:
        graph: with known types, quantized or not, and in topological order; its first output are the logits.
        inner_float32: see `Target.inner_float32`.
    """
    wide: set[str] = set().union(*wide_by_reason(graph).values())
    if inner_float32:
        carrying = carrying_nodes(graph)
        wide -= set().union(*(_attention(node, carrying) for node in graph.nodes))
        for node in graph.nodes:
            if node.op in _MOVES and _moves_narrow(node, wide):
                wide.discard(node.name)
        for image in graph.inputs:
            wide |= {node.name for node in _moved(image)}
    return wide


def wide_by_reason(graph: gs.Graph) -> dict[Reason, set[str]]:
    """The same by what they are for, of any runtime; a node may be there for several reasons."""
    carrying = carrying_nodes(graph)
    found: dict[Reason, set[str]] = {reason: set() for reason in get_args(Reason)}
    found["scores"] = {
        node.name for node in graph.nodes if node.name not in carrying and not _rounds_as_others(node, carrying)
    }
    for image in graph.inputs:
        if image.dtype == np.uint8:
            found["embedding"] |= {node.name for node in _embedding(image)}
    for node in graph.nodes:
        if _by_itself(node):
            found["normalizations" if _is_normalization(node) else "ranges"].add(node.name)
        if node.op in _DECISIONS:
            found["scores"] |= {above.name for above in _way_up(node.inputs, carrying)}
        if node.op == "Softmax":
            added = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
            if added is not None and added.op == "Add":
                products = [t for t in added.inputs if t.inputs and t.inputs[0].op == "MatMul"]
                biases = [tensor for tensor in added.inputs if tensor not in products[:1]]
                found["sizes"] |= {added.name, *(above.name for above in _way_up(biases, carrying))}
    return found


def is_residual(node: gs.Node) -> bool:
    """Whether a node adds what a projection makes to the tokens."""
    if node.op != "Add" or any(isinstance(tensor, gs.Constant) for tensor in node.inputs):
        return False
    return any(_is_branch(tensor) for tensor in node.inputs)


def _is_branch(tensor: gs.Tensor) -> bool:
    """Whether a tensor is a projection's output, with its bias and layer scale."""
    while tensor.inputs:
        node = tensor.inputs[0]
        if is_projection(node):
            return True
        moving = [each for each in node.inputs if not isinstance(each, gs.Constant)]
        if node.op not in ("Add", "Mul", "Reshape", *QDQ) or len(moving) != 1:
            return False
        tensor = moving[0]
    return False


def _is_float(tensor: gs.Tensor) -> bool:
    dtype = numpy_dtype(tensor)
    return dtype is None or dtype.kind == "f"  # bfloat16 has no numpy equal


def _by_itself(node: gs.Node) -> bool:
    """Cases 1 and 2."""
    if node.op == "Cast":
        dtype = numpy_dtype(node.inputs[0])
        return dtype is not None and dtype.kind in "iu"
    return _is_normalization(node) or node.op in _WIDE or node.op.startswith("Reduce") or _has_extreme_scalar(node)


def _rounds_as_others(node: gs.Node, carrying: set[str]) -> bool:
    """Whether a node that only decides is one more product of the kind that all others are."""
    again = node.op in ("Concat", "MatMul", "Transpose") and node.name.startswith(f"{LOGITS}_")
    return again or _projects_tokens(node, carrying)


def _projects_tokens(node: gs.Node, carrying: set[str]) -> bool:
    """Whether a node is a projection of what reaches the logits, or adds its bias, which runtimes do before rounding.

    A query that only a score reads is one; the sums and running sums of scores are not.
    """
    if node.op == "Add":
        products = [tensor.inputs[0] for tensor in node.inputs if tensor.inputs]
        biased = len(products) == 1 and any(isinstance(tensor, gs.Constant) for tensor in node.inputs)
        return biased and products[0].op != "Add" and _projects_tokens(products[0], carrying)
    if not is_projection(node):
        return False
    source = through(node.inputs[0], *_MOVES, *QDQ).inputs
    return node.name in carrying or (bool(source) and source[0].name in carrying)


def _attention(softmax: gs.Node, carrying: set[str]) -> set[str]:
    """Names of a softmax that one product alone reads, and of the sum before it; none of another softmax."""
    readers = softmax.outputs[0].outputs
    if softmax.op != "Softmax" or softmax.name not in carrying or [node.op for node in readers] != ["MatMul"]:
        return set()
    before = softmax.inputs[0].inputs
    return {softmax.name} | ({before[0].name} if before and before[0].op == "Add" else set())


def _moves_narrow(node: gs.Node, wide: set[str]) -> bool:
    """Whether all floats that a node moves come from nodes that are not in float32."""
    sources = [tensor.inputs[0] for tensor in node.inputs if _is_float(tensor) and tensor.inputs]
    return bool(sources) and not any(source.name in wide for source in sources)


def _moved(image: gs.Tensor) -> Iterator[gs.Node]:
    """Every node that moves an input of the graph alone, before anything is computed of it."""
    tensor = image
    while len(tensor.outputs) == 1 and tensor.outputs[0].op in _MOVES:
        yield tensor.outputs[0]
        tensor = tensor.outputs[0].outputs[0]


def _is_normalization(node: gs.Node) -> bool:
    return node.op in NORMALIZATIONS or node.name.startswith(f"{NORM}_")


def _has_extreme_scalar(node: gs.Node) -> bool:
    least, most = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
    floats = [tensor for tensor in node.inputs if isinstance(tensor, gs.Constant) and numpy_dtype(tensor) == np.float32]
    sizes = [abs(value) for tensor in floats if (value := scalar(tensor)) is not None]
    return node.op not in QDQ and any(size and not least <= size <= most for size in sizes)


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


def _way_up(tensors: Iterable[gs.Tensor], carrying: set[str]) -> Iterator[gs.Node]:
    """Every node above some tensors up to projections, residual sums, softmaxes and normalizations, which are left out.

    A method may compare the tokens themselves: without an end there, all residual sums before it would be float32.
    """
    stack, seen = list(tensors), set()
    while stack:
        for node in stack.pop().inputs:
            ends = _projects_tokens(node, carrying) or (node.name in carrying and is_residual(node))
            if id(node) in seen or ends or _is_normalization(node) or node.op == "Attention":
                continue
            seen.add(id(node))
            yield node
            stack += [tensor for tensor in node.inputs if not isinstance(tensor, gs.Constant)]
