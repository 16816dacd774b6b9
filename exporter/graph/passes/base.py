"""What a pass is: a declaration of a pattern, a check that says why it does not fit, and a rewrite.

`match` looks at one node and answers None (not this pattern), a string (the pattern, but it must stay, and why) or a
`Match`. `apply` rewires the graph for one match. `run` does that for every node and cleans up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx.helper
import onnx_graphsurgeon as gs

from ...core.targets import Target

Match = dict[str, Any]
Found = Match | str | None


@dataclass(frozen=True)
class Context:
    """What a pass may know beside the graph.

    Attributes:
        target: where the graph will run.
        fused_attention: whether onnxruntime's fused Attention was asked for.
        opset: of the graph at hand.
        outputs: names of the graph's outputs: a reader that no node's list of consumers shows.
    """

    target: Target
    fused_attention: bool = False
    opset: int = 20
    outputs: frozenset[str] = frozenset()


@dataclass
class PassReport:
    """What one pass did.

    Attributes:
        name: of the pass.
        count: rewrites made.
        skipped: (node, reason) of patterns that had to stay.
        nodes: nodes before and after.
        max_abs: largest error of any output against the graph before the pass; None where it changed nothing or no
            inputs were given.
        near_ties: TopK nodes that ordered near-ties differently than before; `max_abs` is then with their decisions
            replayed.
        seconds: wall time with the comparison.
    """

    name: str
    count: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    nodes: tuple[int, int] = (0, 0)
    max_abs: float | None = None
    near_ties: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest."""
        return {
            "name": self.name,
            "count": self.count,
            "nodes": list(self.nodes),
            "max_abs": self.max_abs,
            "near_ties": self.near_ties,
            "skipped": [f"{node}: {reason}" for node, reason in self.skipped],
        }


@dataclass(frozen=True)
class Pass:
    """A rewrite, declared.

    Attributes:
        name: its effect, in words of the report.
        roots: operators that `match` is asked about.
        match: pattern and check in one look at a node.
        apply: the rewrite of one match.
        wanted: for which contexts it runs at all.
    """

    name: str
    roots: frozenset[str]
    match: Callable[[gs.Node, Context], Found]
    apply: Callable[[gs.Graph, Match, Context], None]
    wanted: Callable[[Context], bool] = lambda context: True

    def run(self, graph: gs.Graph, context: Context) -> PassReport:
        """Rewrite in place; the graph is cleaned and in topological order afterwards."""
        report = PassReport(self.name)
        if not self.wanted(context):
            return report
        outputs = frozenset(tensor.name for tensor in graph.outputs)
        context = replace(context, opset=graph.opset, outputs=outputs)
        for node in list(graph.nodes):
            if node.op not in self.roots or not node.outputs:
                continue
            found = self.match(node, context)
            if isinstance(found, str):
                report.skipped.append((node.name or node.outputs[0].name, found))
            elif found is not None:
                self.apply(graph, found, context)
                report.count += 1
        if report.count:
            graph.cleanup().toposort()
        return report


def constant(tensor: gs.Tensor) -> np.ndarray | None:
    """The value of an initializer or of a Constant node's output, else None."""
    if isinstance(tensor, gs.Constant):
        return np.asarray(tensor.values)
    producer = tensor.inputs[0] if tensor.inputs else None
    if producer is not None and producer.op == "Constant" and "value" in producer.attrs:
        return np.asarray(producer.attrs["value"].values)
    return None


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a constant with one element, else None."""
    value = constant(tensor)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def static_shape(tensor: gs.Tensor) -> list[int] | None:
    """The shape when every dimension is a number, else None."""
    shape = tensor.shape
    if shape is None or not all(isinstance(size, (int, np.integer)) for size in shape):
        return None
    return [int(size) for size in shape]


def producer(tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """The node that makes a tensor, if it is one of `ops` (or any, without `ops`)."""
    if not tensor.inputs:
        return None
    node = tensor.inputs[0]
    return node if not ops or node.op in ops else None


def numpy_dtype(tensor: gs.Tensor) -> np.dtype | None:
    """The type of a tensor, None where it is unknown or has no numpy equal (bfloat16, float8, int4)."""
    try:
        return np.dtype(tensor.dtype) if tensor.dtype is not None else None
    except TypeError:
        return None


def onnx_type(dtype: Any) -> int:
    """ONNX's number of a numpy type, for Cast's `to`."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def only_consumer(tensor: gs.Tensor) -> gs.Node | None:
    """The single node that reads a tensor, else None."""
    return tensor.outputs[0] if len(tensor.outputs) == 1 else None


def through(tensor: gs.Tensor, *ops: str) -> gs.Tensor:
    """Follow a tensor upwards through nodes of the given operators (their first input)."""
    while (node := producer(tensor, *ops)) is not None:
        tensor = node.inputs[0]
    return tensor


class Names:
    """Fresh names in one graph."""

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        self.taken = set(graph.tensors()) | {node.name for node in graph.nodes}
        self.prefix, self.number = prefix, 0

    def __call__(self, hint: str) -> str:
        """A name that no tensor and no node of the graph has."""
        while True:
            self.number += 1
            name = f"{self.prefix}_{hint}_{self.number}"
            if name not in self.taken:
                self.taken.add(name)
                return name


class Builder:
    """Adds nodes to a graph with fresh names and known shapes."""

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        self.graph, self.name = graph, Names(graph, prefix)

    def const(self, values: Any, dtype: Any, hint: str = "const") -> gs.Constant:
        """A constant."""
        return gs.Constant(self.name(hint), np.asarray(values, dtype=dtype))

    def node(
        self,
        op: str,
        inputs: list[gs.Tensor],
        shape: list[int] | None,
        dtype: Any,
        out: gs.Tensor | None = None,
        **attrs: Any,
    ) -> gs.Tensor:
        """A node with one output, which is `out` if given (taken over from its former producer)."""
        if out is None:
            result: gs.Tensor = gs.Variable(self.name(op.lower()), dtype=dtype, shape=shape)
        else:
            result = out
            result.inputs.clear()
        self.graph.nodes.append(gs.Node(op, self.name(op), attrs=attrs, inputs=inputs, outputs=[result]))
        return result
