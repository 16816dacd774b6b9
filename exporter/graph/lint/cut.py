"""Graphs taken apart at nodes that a builder refuses, so that it can be asked about the others, too."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx

from .check import inferred
from .facts import all_nodes, name_of

Values = Mapping[str, onnx.ValueInfoProto]


def name_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Give every node a name of its own, in place, so that a parser can name it.

    Returns:
        what people know a node by, by the name that it has now: that is another where several nodes had one name.
    """
    taken = {node.name for node in all_nodes(model.graph)}
    known: dict[str, str] = {}
    for node in all_nodes(model.graph):
        shown = name_of(node)
        if not node.name or node.name in known:
            numbers = (f"{shown}~{number}" for number in range(2, len(taken) + 3))
            node.name = next(name for name in (shown, *numbers) if name not in taken)
            taken.add(node.name)
        known[node.name] = shown
    return known


def typed_values(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Values of the main graph whose type and number of dimensions are known, by name. It is not changed."""
    graph = inferred(model, True)[0].graph
    return {
        value.name: value
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape")
    }


def cut(model: onnx.ModelProto, names: Collection[str], values: Values) -> bool:
    """Take nodes out of a graph, in place: what they make comes in, and what they read goes out.

    Args:
        model: its nodes have names of their own.
        names: of nodes; one within a branch or a loop takes its whole `If` or `Loop` along.
        values: see `typed_values`.

    Returns:
        whether something is left to be asked about; False, with nothing changed, where a node is not in the main graph
        or the type of a value is not known.
    """
    graph = model.graph
    inside = {node.name: {each.name for each in _within(node)} for node in graph.node}
    gone = {name for name, held in inside.items() if not held.isdisjoint(names)}
    if len(gone) == len(inside) or not set(names).issubset({each for name in gone for each in inside[name]}):
        return False
    out, left = [node for node in graph.node if node.name in gone], [n for n in graph.node if n.name not in gone]
    made = {name for node in out for name in node.output if name}
    read = {name for node in left for inner in _within(node) for name in inner.input}
    if not made & read <= values.keys():
        return False
    kept = {name for node in left for name in node.output if name in values}
    _add(graph.input, made & read, values)
    _add(graph.output, kept & {name for node in out for name in node.input}, values)
    for field, dropped in ((graph.output, made), (graph.node, gone)):
        for index in reversed(range(len(field))):
            if field[index].name in dropped:
                del field[index]
    return bool(graph.output)


def _add(field: Any, names: Collection[str], values: Values) -> None:
    """Inputs or outputs that are not there yet."""
    there = {value.name for value in field}
    field.extend(values[name] for name in sorted(names) if name not in there)


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node, and those of its branches and loops."""
    yield node
    for each in node.attribute:
        for inner in (*([each.g] if each.type == onnx.AttributeProto.GRAPH else ()), *each.graphs):
            yield from all_nodes(inner)


def alone(model: onnx.ModelProto, name: str, values: Values) -> onnx.ModelProto | None:
    """One node of the main graph as a model; None where the type of what it reads or makes is not known.

    Args:
        model: its nodes have names of their own.
        name: of the node.
        values: see `typed_values`.
    """
    node = next((each for each in model.graph.node if each.name == name), None)
    if node is None:
        return None
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = {each.output[0]: each for each in model.graph.node if each.op_type == "Constant" and each.output}
    reads = list(dict.fromkeys(each for each in node.input if each))
    open_reads = [each for each in reads if each not in weights and each not in constants]
    makes = [each for each in node.output if each]
    if any(each not in values for each in (*open_reads, *makes)):
        return None
    found = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    found.graph.name = model.graph.name
    found.graph.node.extend([*(constants[each] for each in reads if each in constants), node])
    found.graph.input.extend(values[each] for each in open_reads)
    found.graph.output.extend(values[each] for each in makes)
    found.graph.initializer.extend(weights[each] for each in reads if each in weights)
    return found
