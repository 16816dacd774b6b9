"""What lint says, and what its checks look up in a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..weights import all_graphs, is_external

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Finding:
    """One thing that a target refuses, gets wrong, or that breaks the static-shape rule.

    Attributes:
        node: node or value name.
        op: operator, or `value`.
        severity: `error` or `warning`.
        what: what is wrong.
        remedy: what to do.
        only_static: it only breaks vitrim's rule that shapes are static, see `static`; a target takes it all the same.
    """

    node: str
    op: str
    severity: Literal["error", "warning"]
    what: str
    remedy: str
    only_static: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what a person reads of it."""
        found = asdict(self)
        del found["only_static"]
        return found

    def __str__(self) -> str:
        return f"{self.severity}: {self.op} {self.node}: {self.what}; {self.remedy}"


@dataclass
class Known:
    """What a node's checks look up.

    Attributes:
        opset: of the default domain.
        constants: constant tensors by name; None where the value is not a plain tensor.
        types: element types by name, as ONNX names them.
        ranks: number of dimensions by name.
        readers: nodes by the name of a value that they read.
        shapes: names of values that follow from constants and shapes alone.
        outputs: names of what the whole graph gives.
    """

    opset: int = 0
    constants: dict[str, TensorProto | None] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    shapes: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Known:
        """Look through a model with inferred shapes."""
        known = cls(opset_of(model) or 0, outputs={value.name for value in model.graph.output})
        for graph in all_graphs(model.graph):
            for tensor in graph.initializer:
                known.constants[tensor.name] = tensor
                known.types[tensor.name] = type_name(tensor.data_type)
                known.ranks[tensor.name] = len(tensor.dims)
            for node in graph.node:
                if node.op_type == "Constant" and node.output:
                    known.constants[node.output[0]] = next((a.t for a in node.attribute if a.name == "value"), None)
                for name in node.input:
                    known.readers.setdefault(name, []).append(node)
            for value in (*graph.input, *graph.value_info, *graph.output):
                kind = value.type.tensor_type
                if kind.elem_type:
                    known.types[value.name] = type_name(kind.elem_type)
                if kind.HasField("shape"):
                    known.ranks[value.name] = len(kind.shape.dim)
        return known

    def value(self, name: str) -> np.ndarray | None:
        """The value of a constant, None if it is none, its data was not loaded, or is damaged."""
        tensor = self.constants.get(name)
        return None if tensor is None or not has_data(tensor) or damage(tensor) else numpy_helper.to_array(tensor)


def type_name(number: int) -> str:
    """ONNX's name of an element type, or its number where this onnx does not know it."""
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"type {number}"


def has_data(tensor: TensorProto) -> bool:
    """Whether a tensor's data is here: neither left in its file nor left out."""
    if is_external(tensor):
        return False
    fields = (tensor.raw_data, tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data)
    return any(len(each) for each in (*fields, tensor.uint64_data, tensor.string_data)) or 0 in tensor.dims


def damage(tensor: TensorProto) -> str:
    """Why a tensor's data cannot be read as its type and shape, empty where it can."""
    try:
        numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:160]
    return ""


def opset_of(model: onnx.ModelProto) -> int | None:
    """The opset of ONNX's own operators, None where the model declares none."""
    return next((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), None)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; the default where it is not there, or its type is none that ONNX knows."""
    given = next((each for each in node.attribute if each.name == name), None)
    try:
        return default if given is None else onnx.helper.get_attribute_value(given)
    except ValueError:  # also one that stands for a function's attribute
        return default


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole number that is an attribute; the default where it is none, or something else stands there."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or its first output's."""
    return node.name or (node.output[0] if node.output else "?")


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes, those of branches and loops too."""
    return (node for inner in all_graphs(graph) for node in inner.node)
