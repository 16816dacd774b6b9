"""Channels evened out before int8: what a normalization scales up in one channel, the weight behind it scales down.

::

    LayerNormalization(gamma, beta)--MatMul(W)  =>  LayerNormalization(gamma / s, beta / s)--MatMul(s W)
    ...--Mul(gamma)--Add(beta)--MatMul(W)       =>  ...--Mul(gamma / s)--Add(beta / s)--MatMul(s W)

The graph computes the same numbers. One scale has to do for all channels of an activation, so a few large channels take
the resolution of all others; a weight has a scale of its own for every column of outputs. `s` goes half of the way, as
SmoothQuant (Xiao et al. 2023, section 4, alpha = 0.5) has it: s_j = sqrt(max|x_j| / max|W_j|), here with a geometric
mean of 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs
from onnx import TensorProto

from ..passes.base import producer
from ..passes.pipeline import copy_of, export_graph
from ..runtime.runners import OrtRunner

_LEAST = 1e-5  # below it a channel says nothing


def affine_of(tensor: gs.Tensor) -> list[gs.Constant] | None:
    """Factors and shifts of the normalization that writes a tensor, if they are constants that nothing else reads."""
    norm = producer(tensor, "LayerNormalization", "Add")
    if norm is None:
        return None
    if norm.op == "LayerNormalization":
        found = list(norm.inputs[1:3])
    else:  # the last two nodes of a normalization in primitives
        scaled = next((producer(value, "Mul") for value in norm.inputs if producer(value, "Mul")), None)
        if scaled is None or len(scaled.outputs[0].outputs) != 1:
            return None
        found = [value for last in (scaled, norm) for value in last.inputs if isinstance(value, gs.Constant)]
    whole = len(found) == 2 and all(isinstance(value, gs.Constant) and value.values.ndim == 1 for value in found)
    return found if whole and all(len(value.outputs) == 1 for value in found) else None


def normalized_products(graph: gs.Graph) -> list[gs.Node]:
    """Products with a weight that alone read a normalization whose factors are constant."""
    return [
        node
        for node in graph.nodes
        if node.op == "MatMul"
        and isinstance(node.inputs[1], gs.Constant)
        and len(node.inputs[1].outputs) == 1
        and len(node.inputs[0].outputs) == 1
        and affine_of(node.inputs[0]) is not None
    ]


def channel_maxima(
    model: onnx.ModelProto, tensors: Iterable[str], images: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Largest absolute value of every channel (the last axis) of some activations [batch, tokens, channels]."""
    watched, names = copy_of(model), list(dict.fromkeys(tensors))
    graph = watched.graph
    del graph.output[:]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= 18:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1], dtype=np.int64), "equalize/axes"))
    for name in names:
        graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}/abs"]))
        axes = ["equalize/axes"] if opset >= 18 else []
        reduced = onnx.helper.make_node("ReduceMax", [f"{name}/abs", *axes], [f"{name}/max"], keepdims=0)
        if opset < 18:
            reduced.attribute.append(onnx.helper.make_attribute("axes", [0, 1]))
        graph.node.append(reduced)
        graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/max", TensorProto.FLOAT, None))
    runner, seen = OrtRunner(watched.SerializeToString()), dict[str, np.ndarray]()
    for piece in images:
        for start in range(0, len(piece), runner.batch):
            outputs = runner(np.resize(piece[start : start + runner.batch], runner.shape))
            for name in names:
                value = outputs[f"{name}/max"]
                seen[name] = np.maximum(seen.get(name, value), value)
    return seen


def equalize(model: onnx.ModelProto, maxima: Mapping[str, np.ndarray]) -> tuple[onnx.ModelProto, int]:
    """Even out the channels behind every normalization that a single product reads.

    Args:
        model: float32, with inferred shapes; it is not changed.
        maxima: by activation, [channels] largest absolute values, see `channel_maxima`.

    Returns:
        the model and how many products were evened out.
    """
    graph = gs.import_onnx(copy_of(model))
    products = [node for node in normalized_products(graph) if node.inputs[0].name in maxima]
    for node in products:
        weight = node.inputs[1]
        largest = np.maximum(maxima[node.inputs[0].name], _LEAST).astype(np.float64)
        rows = np.maximum(np.abs(weight.values).max(axis=1), _LEAST).astype(np.float64)
        factors = np.sqrt(largest / rows)
        factors /= np.exp(np.log(factors).mean())
        for tensor in affine_of(node.inputs[0]) or []:
            tensor.values = (tensor.values / factors).astype(np.float32)
        weight.values = (weight.values * factors[:, None]).astype(np.float32)
    return export_graph(graph, model), len(products)
