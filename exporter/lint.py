"""Will this target take this graph, and compute it rightly? Works on any ONNX file, not only vitrim's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx.defs
from onnx import TensorProto, numpy_helper

from .targets import Target

# Operators whose result size, or whose execution, depends on data.
_DYNAMIC = {
    "NonZero": "its size depends on data",
    "Unique": "its size depends on data",
    "Compress": "its size depends on data",
    "Loop": "the graph is not straight-line",
    "If": "the graph is not straight-line",
    "Scan": "the graph is not straight-line",
    "Range": "its size is computed",
    "Shape": "a static graph computes no shapes",
    "Size": "a static graph computes no shapes",
    "SequenceConstruct": "sequences are no tensors",
}
_INTEGERS = (TensorProto.INT32, TensorProto.INT64, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT8)


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
    """Nodes by operator, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def lint(model: onnx.ModelProto, target: Target) -> list[Finding]:
    """Everything that stands between a graph and a target.

    Args:
        model: any model; its shapes are inferred here.
        target: where it should run.

    Returns:
        findings, errors first; an empty list means that nothing is known against it.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:200]
        return [Finding("graph", "value", "error", f"shapes cannot be inferred: {reason}", "export it anew")]
    findings = [
        *_check_opset(inferred, target),
        *_check_values(inferred, target),
        *_check_nodes(inferred, target),
    ]
    return sorted(findings, key=lambda finding: finding.severity)


def _check_opset(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > target.opset:
            what = f"opset {entry.version} is above {target.name}'s {target.opset}"
            yield Finding("graph", "value", "error", what, "let the passes lower it, or export an older opset")


def _check_values(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    known = set()
    ends = {value.name for value in (*graph.input, *graph.output)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        known.add(value.name)
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        if not tensor.HasField("shape") or any(size is None for size in sizes):
            names = [
                dim.dim_param or "?" if size is None else str(size)
                for dim, size in zip(tensor.shape.dim, sizes, strict=True)
            ]
            what = f"its shape [{', '.join(names)}] is not static"
            yield Finding(value.name, "value", "error", what, "trace with fixed batch, image size and token counts")
        if tensor.elem_type == TensorProto.DOUBLE:
            yield Finding(value.name, "value", "error", "float64", "no edge runtime is fast in it; cast to float32")
        if value.name in ends and not target.int64_io and tensor.elem_type in (TensorProto.INT64, TensorProto.BOOL):
            kind = TensorProto.DataType.Name(tensor.elem_type).lower()
            yield Finding(value.name, "value", "error", f"{kind} input or output", "cast it to int32")
    for node in graph.node:
        for name in node.output:
            if name and name not in known and name not in weights:
                what = "its shape cannot be inferred"
                yield Finding(name, "value", "error", what, f"replace {node.op_type} {node.name} by a static form")


def _check_nodes(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constant_names = set(constants) | {n.output[0] for n in graph.node if n.op_type == "Constant"}
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    wrong = dict(target.wrong)
    for node in graph.node:
        name, op = node.name or (node.output[0] if node.output else "?"), node.op_type
        if node.domain not in ("", "ai.onnx"):
            what = f"operator of the domain {node.domain}"
            yield Finding(name, op, "error", what, "use standard operators, or give the target a plugin")
            continue
        if op in _DYNAMIC:
            yield Finding(name, op, "error", _DYNAMIC[op], "trace with fixed shapes, or fold it")
        if op == "ConstantOfShape" and node.input[0] not in constant_names:
            yield Finding(name, op, "error", "its shape is computed", "trace with fixed shapes, or fold it")
        if op in target.lacks:
            yield Finding(name, op, "error", f"{target.name} has no {op}", "let the passes lower it")
        if op.startswith("Scatter"):
            yield _scatter(node, name, wrong.get(op))
        if op == "TopK":
            yield from _top_k(node, name, target, constants, types)


def _scatter(node: onnx.NodeProto, name: str, known: str | None) -> Finding:
    reduction = next((a.s.decode() for a in node.attribute if a.name == "reduction"), "none")
    remedy = "write the merge as a one-hot matrix product (the pass 'merge without scatter')"
    if known is not None and reduction != "none":
        return Finding(name, node.op_type, "error", f"reduction={reduction}: {known}", remedy)
    return Finding(name, node.op_type, "error", "scatters are slow, missing or wrong on many runtimes", remedy)


def _top_k(
    node: onnx.NodeProto,
    name: str,
    target: Target,
    constants: dict[str, onnx.TensorProto],
    types: dict[str, int],
) -> Iterator[Finding]:
    k = constants.get(node.input[1])
    if k is None:
        yield Finding(name, "TopK", "error", "K is not an initializer", "trace with fixed counts, fold constants")
    elif target.largest_k and int(np.max(numpy_helper.to_array(k))) > target.largest_k:
        size = int(np.max(numpy_helper.to_array(k)))
        yield Finding(name, "TopK", "error", f"K = {size} is above {target.largest_k}", "use fewer tokens")
    if not target.integer_topk and types.get(node.input[0]) in _INTEGERS:
        yield Finding(name, "TopK", "error", f"{target.name} ranks no integers", "rank them as float32")
    if any(a.name == "sorted" and a.i == 0 for a in node.attribute) and target.runtime == "tensorrt":
        yield Finding(name, "TopK", "error", "TensorRT takes sorted=1 only", "set sorted to 1")
