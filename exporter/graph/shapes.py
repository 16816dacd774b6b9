"""Shapes of every value, inferred on a model without the data of its large weights."""

from __future__ import annotations

from math import prod

import onnx
import onnx.shape_inference

from ..core.errors import UnsupportedError
from .weights import all_graphs, is_external

LARGEST_READ = 1024  # elements of a constant that may tell a shape


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the type and shape, but not the data, of its large initializers.

    Shape inference reads only small ones, and takes the model serialized: weights are most of its time. Data that is
    still in its file stays out, small or not. Of the shapes that are written down, only those that nothing can infer
    are kept: what operators of other domains write.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    foreign = {name for node in model.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    bare.graph.value_info.extend(value for value in model.graph.value_info if value.name in foreign)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= LARGEST_READ and not is_external(tensor):
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    for graph in all_graphs(bare.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _forget_negative(value)
    return bare


def _forget_negative(value: onnx.ValueInfoProto) -> None:
    """Negative sizes become unknown ones, which some mean by them; ONNX's inference ends the process on others."""
    for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
        if dim.HasField("dim_value") and dim.dim_value < 0:
            dim.ClearField("dim_value")


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, changed in place, with every value's shape inferred anew.

    Raises:
        UnsupportedError: the shapes contradict each other.
    """
    bare = without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(f"the graph's shapes do not fit together: {reason}") from error
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model
