"""Will this target take this graph, and compute it rightly? Works on any ONNX file, not only vitrim's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx.defs
from onnx import TensorProto, numpy_helper

from .targets import Target

_SIZE = "its size depends on data"
_BRANCH = "the graph is not straight-line"
_SHAPES = "a static graph computes no shapes"
# Operators whose result size, or whose execution, depends on data.
_DYNAMIC = {
    "Compress": _SIZE,
    "NonMaxSuppression": _SIZE,
    "NonZero": _SIZE,
    "Unique": _SIZE,
    "If": _BRANCH,
    "Loop": _BRANCH,
    "Scan": _BRANCH,
    "SequenceMap": _BRANCH,
    "Range": "its size is computed",
    "Shape": _SHAPES,
    "Size": _SHAPES,
    "SequenceConstruct": "sequences are no tensors",
}
# The inputs that decide a result's size: they must be constant.
_SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
}
_INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
_TRACE = "trace with fixed shapes, or fold it"


@dataclass(frozen=True)
class Finding:
    """One thing that a target refuses, gets wrong, or that breaks the static-shape rule.

    Attributes:
        node: node or value name.
        op: operator, or `value`.
        severity: `error` or `warning`.
        what: what is wrong.
        remedy: what to do.
    """

    node: str
    op: str
    severity: Literal["error", "warning"]
    what: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity}: {self.op} {self.node}: {self.what}; {self.remedy}"


def operator_table(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, most frequent first; those of branches and loops too."""
    return dict(Counter(node.op_type for node in _all_nodes(model.graph)).most_common())


def compare_tables(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(operator, count before, count after) of two operator tables, the largest change first, then by name."""
    rows = [(op, before.get(op, 0), after.get(op, 0)) for op in {*before, *after}]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[1]), row[0]))


def lint(model: onnx.ModelProto, target: Target) -> list[Finding]:
    """Everything that stands between a graph and a target.

    Args:
        model: any model; its shapes are inferred here.
        target: where it should run.

    Returns:
        findings, errors first; an empty list means that nothing is known against it.
    """
    findings: list[Finding] = []
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:200]
        findings.append(Finding("graph", "value", "error", f"shapes cannot be inferred: {reason}", "export it anew"))
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    known = _Known.of(inferred.graph)
    findings += [
        *_check_opset(inferred, target),
        *_check_values(inferred, target),
        *(finding for node in _all_nodes(inferred.graph) for finding in _check_node(node, known, target)),
    ]
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.severity)


@dataclass
class _Known:
    """What a node's checks look up: constant tensors and types by name."""

    constants: dict[str, TensorProto | None] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Known:
        known = cls()
        for inner in _all_graphs(graph):
            known.constants |= {tensor.name: tensor for tensor in inner.initializer}
            for node in inner.node:
                if node.op_type == "Constant":
                    known.constants[node.output[0]] = next((a.t for a in node.attribute if a.name == "value"), None)
            for value in (*inner.input, *inner.value_info, *inner.output):
                known.types[value.name] = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        return known


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from _all_graphs(inner)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for inner in _all_graphs(graph) for node in inner.node)


def _check_opset(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > target.opset:
            what = f"opset {entry.version} is above {target.name}'s {target.opset}"
            yield Finding("graph", "value", "error", what, "let the passes lower it, or export an older opset")
    for function in model.functions:
        what = "a function of the model's own"
        yield Finding(function.name, "value", "warning", what, "inline it (onnx.inliner) to have it linted")


def _check_values(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    known = set()
    ends = {value.name for value in (*inputs, *graph.output)}
    for value in (*inputs, *graph.output, *graph.value_info):
        known.add(value.name)
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        if not tensor.HasField("shape") or any(size is None for size in sizes):
            names = [
                dim.dim_param or "?" if size is None else str(size)
                for dim, size in zip(tensor.shape.dim, sizes, strict=True)
            ]
            what = f"its shape [{', '.join(names)}] is not static" if tensor.HasField("shape") else "it has no shape"
            yield Finding(value.name, "value", "error", what, "trace with fixed batch, image size and token counts")
        if 0 in sizes:
            yield Finding(
                value.name, "value", "error", "it holds nothing (a dimension is 0)", "remove it from the model"
            )
        if tensor.elem_type == TensorProto.DOUBLE:
            yield Finding(value.name, "value", "error", "float64", "no edge runtime is fast in it; cast to float32")
        if value.name in ends and not target.int64_io and tensor.elem_type in (TensorProto.INT64, TensorProto.BOOL):
            kind = TensorProto.DataType.Name(tensor.elem_type).lower()
            yield Finding(value.name, "value", "error", f"{kind} input or output", "cast it to int32")
    for weight in graph.initializer:
        if weight.data_type == TensorProto.DOUBLE:
            yield Finding(weight.name, "value", "error", "float64", "store the weight as float32")
    for node in graph.node:
        for name in node.output:
            if name and name not in known and name not in weights:
                what = "its shape cannot be inferred"
                yield Finding(name, "value", "error", what, f"replace {node.op_type} {node.name} by a static form")


def _check_node(node: onnx.NodeProto, known: _Known, target: Target) -> Iterable[Finding]:
    name, op = node.name or (node.output[0] if node.output else "?"), node.op_type
    if node.domain not in ("", "ai.onnx"):
        what = f"operator of the domain {node.domain}"
        yield Finding(name, op, "error", what, "use standard operators, or give the target a plugin")
        return
    if op in _DYNAMIC:
        yield Finding(name, op, "error", _DYNAMIC[op], _TRACE)
    for position in _SIZES.get(op, ()):
        given = node.input[position] if position < len(node.input) else ""
        if given and given not in known.constants:
            yield Finding(name, op, "error", f"its shape is computed ({given})", _TRACE)
    if op in target.lacks:
        yield Finding(name, op, "error", f"{target.name} has no {op}", "let the passes lower it")
    if op.startswith("Scatter"):
        yield _scatter(node, name, target)
    if op == "TopK":
        yield from _top_k(node, name, known, target)


def _scatter(node: onnx.NodeProto, name: str, target: Target) -> Finding:
    reduction = next((a.s.decode() for a in node.attribute if a.name == "reduction"), "none")
    remedy = "write the merge as a one-hot matrix product (the pass 'merge without scatter')"
    known = dict(target.wrong).get(node.op_type)
    if known is not None and reduction != "none":
        how = "silently wrong: " if target.silent else ""
        return Finding(name, node.op_type, "error", f"{how}reduction={reduction}: {known}", remedy)
    return Finding(name, node.op_type, "error", "scatters are slow, missing or wrong on many runtimes", remedy)


def _top_k(node: onnx.NodeProto, name: str, known: _Known, target: Target) -> Iterator[Finding]:
    k = known.constants.get(node.input[1]) if len(node.input) > 1 else None
    if k is None:
        yield Finding(name, "TopK", "error", "K is not an initializer", "trace with fixed counts, fold constants")
    elif target.largest_k and (size := int(np.max(numpy_helper.to_array(k)))) > target.largest_k:
        yield Finding(name, "TopK", "error", f"K = {size} is above {target.largest_k}", "use fewer tokens")
    if not target.integer_topk and known.types.get(node.input[0]) in _INTEGERS:
        yield Finding(name, "TopK", "error", f"{target.name} ranks no integers", "rank them as float32")
    if any(a.name == "sorted" and a.i == 0 for a in node.attribute) and target.runtime == "tensorrt":
        yield Finding(name, "TopK", "error", "TensorRT takes sorted=1 only", "set sorted to 1")
