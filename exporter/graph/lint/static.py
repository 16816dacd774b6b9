"""Shapes that are not static: vitrim's own rule, which no target has. What follows from it is one finding.

A runtime folds or computes shapes that follow from the shapes of the inputs: onnxruntime as it goes, TensorRT within an
optimization profile. What depends on data instead is a matter of every target, and stays in its findings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx

from ..weights import all_graphs
from .facts import DEFAULT_DOMAINS, Finding, attribute

_FIXED = "python -m onnxruntime.tools.make_dynamic_shape_fixed"


def shape_values(model: onnx.ModelProto, constants: Collection[str]) -> set[str]:
    """Names of values that follow from constants and from the shapes of other values alone, whatever the data is.

    Args:
        model: its nodes in an order in which they can run.
        constants: names of constant tensors.
    """
    found = set(constants)
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.domain in DEFAULT_DOMAINS and _follows(node, found):
                found.update(name for name in node.output if name)
    return found


def _follows(node: onnx.NodeProto, known: Collection[str]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return True
    inputs = [name for name in node.input if name]
    if any(each.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for each in node.attribute):
        return False
    return all(name in known for name in inputs) if inputs else attribute(node, "value") is not None


def split(findings: Iterable[Finding]) -> tuple[list[Finding], list[Finding]]:
    """(what a target refuses or doubts, what is only not static)."""
    every = list(findings)
    return [one for one in every if not one.only_static], [one for one in every if one.only_static]


def one_finding(model: onnx.ModelProto, wishes: Iterable[Finding]) -> Finding | None:
    """All that is not static as one finding, with what to do; None where nothing is.

    Args:
        model: whose inputs are named.
        wishes: findings of one or several targets, those that are `only_static`.
    """
    every = list(dict.fromkeys(wishes))
    if not every:
        return None
    weights = {tensor.name for tensor in model.graph.initializer}
    open_inputs = [value for value in model.graph.input if value.name not in weights and _is_open(value)]
    if not open_inputs:
        first, rest = every[0], len({one.node for one in every}) - 1
        more = f", and {rest} more like it" if rest else ""
        what = f"{first.op} {first.node}: {first.what}{more}"
        return Finding(first.node, "static", "warning", what, f"runtimes take that; for vitrim, {first.remedy}", True)
    first_input = open_inputs[0]
    named = " and ".join(f"{value.name} {_shown(value)}" for value in open_inputs)
    follows = len({one.node for one in every} - {value.name for value in open_inputs})
    what = f"the input{'s' if len(open_inputs) > 1 else ''} {named}" + (
        f", and {follows} values and nodes that follow from that" if follows else ""
    )
    return Finding(first_input.name, "static", "warning", what, _remedy(first_input), True)


def _is_open(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim)


def _shown(value: onnx.ValueInfoProto) -> str:
    if not value.type.tensor_type.HasField("shape"):
        return "of any shape"
    dims = value.type.tensor_type.shape.dim
    return f"[{', '.join(str(dim.dim_value) if dim.HasField('dim_value') else dim.dim_param or '?' for dim in dims)}]"


def _remedy(value: onnx.ValueInfoProto) -> str:
    """What to do about an input: fixed, or as it is."""
    dims = value.type.tensor_type.shape.dim
    sizes = [
        str(dim.dim_value) if dim.HasField("dim_value") else "1" if axis == 0 else dim.dim_param.upper() or "N"
        for axis, dim in enumerate(dims)
    ]
    if not sizes:
        return "onnxruntime takes it as it is; export it with fixed shapes for vitrim and for TensorRT"
    least = f"{value.name}:{'x'.join(sizes)}"
    most = least if dims[0].HasField("dim_value") else f"{value.name}:{'x'.join(['8', *sizes[1:]])}"
    return (
        "onnxruntime takes it as it is, and TensorRT with a profile "
        f"(trtexec --minShapes={least} --optShapes={least} --maxShapes={most}); or fix it: "
        f"{_FIXED} --input_name {value.name} --input_shape {','.join(sizes)} IN.onnx OUT.onnx"
    )
