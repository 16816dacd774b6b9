"""Which nodes of a pruned graph any quantizer is to leave in float, by reason: what lies in a bundle for other tools.

Quantized scores choose other tokens, quantized sizes weigh them wrongly, and merging by a quantized matrix blends what
should stay apart. A tool that knows none of this quantizes all of it.

========================  =============================================================================
`scores`                  what only decides, and the way from a projection to every TopK and comparison
`similarities`            those of them that multiply tokens with tokens
`sizes`                   what is added to attention's logits because of merged tokens
`merges`                  products, scatters and weightings by which tokens are merged
`attention`               q k' and attention by v: two activations, where one scale of each is seldom enough
`residuals`               sums of tokens and what a block adds to them: a few large channels take all 8 bits
`normalizations`          norms and softmaxes
`ranges`                  sums, exponentials and the like, integers that become floats, extreme scalars
`embedding`               of uint8 pixels
========================  =============================================================================
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..passes.base import static_shape
from .float32_nodes import carrying_nodes, is_projection, is_residual, wide_by_reason

_SCATTERS = ("ScatterElements", "ScatterND")
_BETWEEN = ("Add", "Mul", "Div", "Where", "Cast", "Reshape", "Transpose", "Slice", "Concat")


def float_nodes(graph: gs.Graph) -> dict[str, list[str]]:
    """Names of the nodes to leave in float, by reason, each once and in the order of the graph.

    Args:
        graph: float32, with known types and shapes; its first output are the logits.
    """
    wide, carrying = wide_by_reason(graph), carrying_nodes(graph)
    products = [node for node in graph.nodes if node.op == "MatMul" and not is_projection(node)]
    attending = {node.name for node in graph.nodes if node.op == "Attention"} | _attention(graph, carrying)
    merging = {node.name for node in products if node.name in carrying} - attending
    merging |= {node.name for node in graph.nodes if node.name in carrying and (node.op in _SCATTERS or _weighs(node))}
    reasons = {
        "similarities": {node.name for node in products if node.name in wide["scores"]},
        "scores": wide["scores"],
        "sizes": wide["sizes"],
        "merges": merging,
        "attention": attending,
        "residuals": {node.name for node in graph.nodes if is_residual(node)},
        "normalizations": wide["normalizations"],
        "ranges": wide["ranges"],
        "embedding": wide["embedding"],
    }
    found: dict[str, list[str]] = {reason: [] for reason in reasons}
    for node in graph.nodes:
        reason = next((reason for reason, names in reasons.items() if node.name in names), None)
        if reason is not None:
            found[reason].append(node.name)
    return found


def _attention(graph: gs.Graph, carrying: set[str]) -> set[str]:
    """Products of two activations right before and right behind a softmax whose numbers reach the logits."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op == "Softmax" and node.name in carrying:
            found |= _nearest(node, up=True) | _nearest(node, up=False)
    return found & carrying


def _nearest(node: gs.Node, *, up: bool) -> set[str]:
    """The first products of two activations on every way from a node."""
    found: set[str] = set()
    stack, seen = [node], {id(node)}
    while stack:
        here = stack.pop()
        tensors = here.inputs if up else here.outputs
        for near in (each for tensor in tensors for each in (tensor.inputs if up else tensor.outputs)):
            if id(near) in seen:
                continue
            seen.add(id(near))
            if near.op == "MatMul" and not is_projection(near):
                found.add(near.name)
            elif near.op in _BETWEEN:
                stack.append(near)
    return found


def _weighs(node: gs.Node) -> bool:
    """Whether a node computes with a number per token, such as its size, or weighs tokens by it."""
    if node.op not in ("Add", "Mul", "Div") or any(isinstance(tensor, gs.Constant) for tensor in node.inputs):
        return False
    return any((static_shape(tensor) or [])[-1:] == [1] for tensor in node.inputs)
