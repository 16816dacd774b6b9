"""What a pass is: graph in, graph out, numerically the same; and the kind that most passes are, a declared pattern.

A `PatternPass` has a `match`, which looks at one node and answers None (not this pattern), a string (the pattern, but
it must stay, and why) or what it found, and an `apply`, which rewires the graph for one of those. Passes of other kinds
say themselves how they change a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Generic, TypeVar

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs

from ...core.targets import Precision, Target
from ..surgery import LastGraph, export_graph, peek
from ..weights import Weights

M = TypeVar("M")


@dataclass(frozen=True)
class Context:
    """What a pass may know beside the graph.

    Attributes:
        target: where the graph will run.
        precision: that the graph will be written in afterwards.
        fused_attention: whether onnxruntime's fused Attention was asked for.
        pixels: whether the image becomes 8-bit pixels afterwards, see `io`.
        opset: of the graph at hand.
        outputs: names of the graph's outputs: a reader that no node's list of consumers shows.
        weights: where the weights are that the graph has beside it.
        reasons: by node, why a pass before this one had to leave it as it is.
        last: the graph of the model, where a pass before this one had it.
    """

    target: Target
    precision: Precision = "fp32"
    fused_attention: bool = False
    pixels: bool = False
    opset: int = 20
    outputs: frozenset[str] = frozenset()
    weights: Weights | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    last: LastGraph = field(default_factory=LastGraph)

    @property
    def for_tensorrt(self) -> bool:
        """Whether TensorRT runs the graph itself, not through onnxruntime."""
        return self.target.runtime == "tensorrt"

    def after(self, report: PassReport) -> Context:
        """What the next pass may know."""
        return replace(self, reasons={**self.reasons, **dict(report.skipped)})


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


class Pass(ABC):
    """One change of a graph.

    Attributes:
        name: its effect, in words of the report.
    """

    name: str

    @abstractmethod
    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """Change a model.

        Args:
            model: with inferred shapes; it is not changed.
            context: what is known beside it.

        Returns:
            the new model, or the same one, and what was done; where that is nothing, the count is 0.

        Raises:
            UnsupportedError: the target cannot take the graph; the node is named.
        """


@dataclass(frozen=True)
class PatternPass(Pass, Generic[M]):
    """A rewrite of a pattern, declared.

    Attributes:
        name: its effect, in words of the report.
        roots: operators that `match` is asked about.
        match: pattern and check in one look at a node.
        apply: the rewrite of one match.
        wanted: for which contexts it runs at all.
    """

    name: str
    roots: frozenset[str]
    match: Callable[[gs.Node, Context], M | str | None]
    apply: Callable[[gs.Graph, M, Context], None]
    wanted: Callable[[Context], bool] = lambda context: True

    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """See `Pass`."""
        if not self.wanted(context) or not any(node.op_type in self.roots for node in model.graph.node):
            return model, PassReport(self.name)
        graph = context.last.take(model, context.weights)
        report = self.rewrite(graph, context)
        model = export_graph(graph, model) if report.count else model
        context.last.leave(model, graph)
        return model, report

    def rewrite(self, graph: gs.Graph, context: Context) -> PassReport:
        """Rewrite in place; the graph is cleaned and in topological order afterwards."""
        report = PassReport(self.name)
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
        return peek(tensor)
    producer = tensor.inputs[0] if tensor.inputs else None
    if producer is not None and producer.op == "Constant" and "value" in producer.attrs:
        return peek(producer.attrs["value"])
    return None


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a constant with one element, else None."""
    if isinstance(tensor, gs.Constant) and prod(tensor.shape) != 1:
        return None
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
