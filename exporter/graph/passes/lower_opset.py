"""The declared opset brought to the target's, node by node, with the operator schemas as the judge.

::

    ReduceMean(x, axes)             (18)  =>  ReduceMean(x; axes=[-1])      (17)
    Split(x; num_outputs=3)         (18)  =>  Split(x, [2, 2, 2])           (17)
    Op(x; newer_attribute=default)        =>  Op(x)

1. Reduce* before 18 and ReduceSum before 13: `axes` is an attribute instead of an input;
2. `Split`'s `num_outputs` becomes the sizes of its parts;
3. an attribute that the older schema does not know goes when it says the default, `Cast`'s `saturate` always (it
   speaks of float8);
4. an operator whose signature stayed but whose meaning changed on the way, an attribute whose default changed, and
   anything else that the older schema does not know, is refused with the node's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper
from onnx import numpy_helper

from ...core.errors import UnsupportedError
from ..surgery import copy_of
from .base import Context, Pass, PassReport

_HARMLESS = {("Cast", "saturate")}
# Same signature, other meaning from this opset on: names of the modes; one scale per channel instead of one per group.
_CHANGED = {"GridSample": 20, "GroupNormalization": 21}
_PLAIN_TYPES = frozenset(range(1, 17))  # types as old as the format; the newer ones need a newer IR version


@dataclass(frozen=True)
class LowerOpset(Pass):
    """Cases 1 to 4, and the oldest file version that goes with the opset."""

    name: str

    def run(self, model: onnx.ModelProto, context: Context) -> tuple[onnx.ModelProto, PassReport]:
        """See `Pass`."""
        copied = copy_of(model)
        count = lower(copied, context.target.opset) + (declared(model).version > context.target.opset)
        oldest_ir(copied)
        return copied, PassReport(self.name, count)


def declared(model: onnx.ModelProto) -> onnx.OperatorSetIdProto:
    """The entry of the default operator domain."""
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            return item
    raise UnsupportedError("the model declares no ONNX opset; it is not a plain ONNX graph")


def lower(model: onnx.ModelProto, opset: int) -> int:
    """Lower the default domain's opset in place.

    Args:
        model: a graph without sub-graphs or functions, with inferred shapes.
        opset: the version to declare; nothing happens if the model's is not higher.

    Returns:
        how many nodes were changed.

    Raises:
        UnsupportedError: a node has no equal in the older opset; it is named.
    """
    entry = declared(model)
    if entry.version <= opset:
        return 0
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    changed = 0
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        node.name = node.name or f"{node.op_type}_{node.output[0]}"
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError as error:
            raise UnsupportedError(
                f"node {node.name} is a {node.op_type}, which opset {opset} does not have; lower it by a pass first"
            ) from error
        newer = onnx.defs.get_schema(node.op_type, entry.version, "")
        if newer.since_version == schema.since_version:
            continue
        if opset < _CHANGED.get(node.op_type, 0) <= entry.version:
            raise UnsupportedError(f"node {node.name}: {node.op_type} means something else in opset {opset}")
        changed += _axes_to_attribute(node, schema, constants) or _sizes_of_split(node, model)
        changed += _drop_attributes(node, schema, newer, opset)
        if len(node.input) > schema.max_input:
            raise UnsupportedError(f"node {node.name}: {node.op_type} takes {schema.max_input} inputs in opset {opset}")
    entry.version = opset
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return changed


def _axes_to_attribute(node: onnx.NodeProto, schema: onnx.defs.OpSchema, constants: dict[str, onnx.TensorProto]) -> int:
    """Case 1."""
    if "axes" not in schema.attributes or len(node.input) < 2 or not node.op_type.startswith("Reduce"):
        return 0
    axes = constants.get(node.input[1])
    if node.input[1] and axes is None:
        raise UnsupportedError(f"node {node.name}: {node.op_type} has computed axes, which this opset does not take")
    values = numpy_helper.to_array(axes).astype(np.int64).tolist() if axes is not None else []
    del node.input[1:]
    if values:
        node.attribute.append(onnx.helper.make_attribute("axes", values))
    elif any(attribute.name == "noop_with_empty_axes" and attribute.i for attribute in node.attribute):
        raise UnsupportedError(f"node {node.name}: {node.op_type} over no axes does nothing; remove it first")
    return 1


def _sizes_of_split(node: onnx.NodeProto, model: onnx.ModelProto) -> int:
    """Case 2."""
    parts = [attribute for attribute in node.attribute if attribute.name == "num_outputs"]
    if node.op_type != "Split" or not parts:
        return 0
    graph = model.graph
    if len(node.input) < 2 or not node.input[1]:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
        dims = [shapes.get(name) for name in node.output]
        sizes = [dim[axis].dim_value for dim in dims if dim is not None and -len(dim) <= axis < len(dim)]
        if len(sizes) != len(node.output) or not all(sizes):
            raise UnsupportedError(f"node {node.name}: the sizes of the parts that Split makes are not known")
        name = f"{node.output[0]}_parts"
        graph.initializer.append(numpy_helper.from_array(np.array(sizes, dtype=np.int64), name))
        del node.input[1:]
        node.input.append(name)
    node.attribute.remove(parts[0])
    return 1


def _default(schema: onnx.defs.OpSchema, name: str) -> Any:
    known = schema.attributes.get(name)
    if known is None or not known.default_value.name:
        return None
    return onnx.helper.get_attribute_value(known.default_value)


def _drop_attributes(node: onnx.NodeProto, schema: onnx.defs.OpSchema, newer: onnx.defs.OpSchema, opset: int) -> int:
    """Cases 3 and 4."""
    changed = 0
    given = {attribute.name for attribute in node.attribute}
    for attribute in list(node.attribute):
        if attribute.name in schema.attributes:
            continue
        value = onnx.helper.get_attribute_value(attribute)
        if (node.op_type, attribute.name) not in _HARMLESS and value != _default(newer, attribute.name):
            raise UnsupportedError(
                f"node {node.name}: {node.op_type} has {attribute.name}={value!r}, which opset {opset} does not know"
            )
        node.attribute.remove(attribute)
        changed += 1
    for name in schema.attributes:
        old, new = _default(schema, name), _default(newer, name)
        if name not in given and name in newer.attributes and old != new:
            raise UnsupportedError(
                f"node {node.name}: {node.op_type} leaves {name} at its default, which is {new!r}, but {old!r} in "
                f"opset {opset}"
            )
    return changed


def oldest_ir(model: onnx.ModelProto) -> None:
    """Declare the oldest file version that the opset allows: older runtimes refuse a newer one unread."""
    graph = model.graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    least = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = least if kinds <= _PLAIN_TYPES | {0} else max(least, model.ir_version)


OPSET = LowerOpset("opset at most the target's")
