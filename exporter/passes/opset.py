"""The declared opset brought to the target's, node by node, with the operator schemas as the judge.

1. Reduce* before 18 and ReduceSum before 13: `axes` is an attribute instead of an input;
2. an attribute that the older schema does not know goes when it says the default, `Split`'s `num_outputs` when the
   parts are given, `Cast`'s `saturate` always (it speaks of float8);
3. anything else that the older schema does not know is refused with the node's name.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.defs
import onnx.helper
from onnx import numpy_helper

from ..errors import UnsupportedError

_HARMLESS = {("Cast", "saturate"), ("Reshape", "allowzero")}


def lower(model: onnx.ModelProto, opset: int) -> int:
    """Lower the default domain's opset in place.

    Args:
        model: a graph without sub-graphs or functions.
        opset: the version to declare; nothing happens if the model's is not higher.

    Returns:
        how many nodes were changed.

    Raises:
        UnsupportedError: a node has no equal in the older opset; it is named.
    """
    entry = next(item for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if entry.version <= opset:
        return 0
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = 0
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, "")
        except onnx.defs.SchemaError as error:
            raise UnsupportedError(
                f"node {node.name} is a {node.op_type}, which opset {opset} does not have; lower it by a pass first"
            ) from error
        changed += _axes_to_attribute(node, schema, constants)
        changed += _drop_attributes(node, schema, opset)
        if len(node.input) > schema.max_input:
            raise UnsupportedError(f"node {node.name}: {node.op_type} takes {schema.max_input} inputs in opset {opset}")
    entry.version = opset
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    return changed


def _axes_to_attribute(node: onnx.NodeProto, schema: onnx.defs.OpSchema, constants: dict[str, onnx.TensorProto]) -> int:
    """Case 1."""
    if "axes" not in schema.attributes or len(node.input) < 2 or not node.op_type.startswith("Reduce"):
        return 0
    axes = constants.get(node.input[1])
    if axes is None:
        raise UnsupportedError(f"node {node.name}: {node.op_type} has computed axes, which this opset does not take")
    node.attribute.append(onnx.helper.make_attribute("axes", numpy_helper.to_array(axes).astype(np.int64).tolist()))
    del node.input[1:]
    return 1


def _drop_attributes(node: onnx.NodeProto, schema: onnx.defs.OpSchema, opset: int) -> int:
    """Cases 2 and 3."""
    changed = 0
    for attribute in list(node.attribute):
        if attribute.name in schema.attributes:
            continue
        newest = onnx.defs.get_schema(node.op_type, domain="").attributes.get(attribute.name)
        value = onnx.helper.get_attribute_value(attribute)
        default = (
            newest is not None and newest.default_value.name and onnx.helper.get_attribute_value(newest.default_value)
        )
        parts_given = (node.op_type, attribute.name) == ("Split", "num_outputs") and len(node.input) > 1
        if not ((node.op_type, attribute.name) in _HARMLESS or parts_given or value == default):
            raise UnsupportedError(
                f"node {node.name}: {node.op_type} has {attribute.name}={value!r}, which opset {opset} does not know"
            )
        node.attribute.remove(attribute)
        changed += 1
    return changed


def raise_to(model: onnx.ModelProto, opset: int) -> None:
    """Declare a higher opset; between 20 and 23 the operators that vitrim emits only gained types."""
    entry = next(item for item in model.opset_import if item.domain in ("", "ai.onnx"))
    entry.version = max(entry.version, opset)
