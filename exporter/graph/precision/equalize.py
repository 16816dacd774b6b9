"""Channels evened out before int8: what a normalization scales up in one channel, the weight behind it scales down.

::

    LayerNormalization(gamma, beta)--MatMul(W)  =>  LayerNormalization(gamma / s, beta / s)--MatMul(s W)
    ...--Mul(gamma)--Add(beta)--MatMul(W)       =>  ...--Mul(gamma / s)--Add(beta / s)--MatMul(s W)
    LayerNormalization--MatMul(Wkv)             =>  the same with one s for both products
             |--Slice(first row)--MatMul(Wq)

The graph computes the same numbers. One scale has to do for all channels of an activation, so a few large channels take
the resolution of all others; a weight has a scale of its own for every column of outputs. `s` goes half of the way, as
SmoothQuant (Xiao et al. 2023, section 4, alpha = 0.5) has it: s_j = sqrt(max|x_j| / max|W_j|), here with a geometric
mean of 1. Products that read one normalization, whole or in part, share its `s`, and max|W_j| is over all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
import onnx.helper
import onnx_graphsurgeon as gs
from onnx import TensorProto

from ..passes.base import Names, constant, producer
from ..passes.lower_opset import declared
from ..session import Session
from ..surgery import copy_of, export_graph, import_graph
from .ranges import batches_of

_LEAST = 1e-5  # below it a channel says nothing


def affine_of(tensor: gs.Tensor) -> list[tuple[gs.Node, int]] | None:
    """Where factors and shifts of the normalization that writes a tensor are read, (node, input), if constant."""
    norm = producer(tensor, "LayerNormalization", "Add")
    if norm is None:
        return None
    if norm.op == "LayerNormalization":
        places = [(norm, index) for index in range(1, len(norm.inputs))]
    else:  # the last two nodes of a normalization in primitives
        scaled = next((node for value in norm.inputs if (node := producer(value, "Mul"))), None)
        if scaled is None or len(scaled.outputs[0].outputs) != 1:
            return None
        places = [(node, index) for node in (scaled, norm) for index in (0, 1) if _is_row(node.inputs[index])]
    return places if len(places) == 2 and all(_is_row(node.inputs[index]) for node, index in places) else None


def _is_row(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and len(tensor.shape) == 1


def normalized_products(graph: gs.Graph) -> dict[str, list[gs.Node]]:
    """Products with a weight, by the output of a normalization with constant factors that they alone read.

    A product may read all rows of that output or a slice of them.
    """
    given = {tensor.name for tensor in graph.outputs}
    written = [node.outputs[0] for node in graph.nodes if node.op in ("LayerNormalization", "Add")]
    found = {tensor.name: _products_of(tensor, given) for tensor in written if affine_of(tensor)}
    return {name: products for name, products in found.items() if products}


def _products_of(tensor: gs.Tensor, given: Collection[str]) -> list[gs.Node]:
    """Products with a weight that read rows of a tensor; none where something else does, too."""
    if tensor.name in given:
        return []
    found: list[gs.Node] = []
    for reader in tensor.outputs:
        products = [reader] if _weighs(reader, tensor) else []
        if _cuts_rows(reader, tensor):
            products = _products_of(reader.outputs[0], given)
        if not products:
            return []
        found += products
    return found


def _weighs(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether a node is the product of a tensor with a weight."""
    weight = node.inputs[1] if node.op == "MatMul" and node.inputs[0] is tensor else None
    return isinstance(weight, gs.Constant) and len(weight.shape) == 2


def _cuts_rows(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether a node takes some rows of a tensor, with all their channels."""
    axes = constant(node.inputs[3]) if node.op == "Slice" and len(node.inputs) > 3 else None
    return axes is not None and not {-1, len(tensor.shape) - 1} & set(axes.tolist())


def channel_maxima(
    model: onnx.ModelProto, tensors: Iterable[str], images: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Largest absolute value of every channel (the last axis) of some activations.

    Args:
        model: float32, with inferred shapes; it is not changed.
        tensors: names of activations [..., channels].
        images: pieces of [n, ...] as the graph takes them.
    """
    watched, names = copy_of(model), list(dict.fromkeys(tensors))
    graph = watched.graph
    del graph.output[:]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    opset = declared(model).version
    for name in names:
        graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}/abs"]))
        axes = list(range(ranks[name] - 1))
        reduced = onnx.helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/max"], keepdims=0)
        if opset < 18:
            reduced.attribute.append(onnx.helper.make_attribute("axes", axes))
        else:
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, dtype=np.int64), f"{name}/axes"))
            reduced.input.append(f"{name}/axes")
        graph.node.append(reduced)
        graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/max", TensorProto.FLOAT, None))
    session, seen = Session(watched), dict[str, np.ndarray]()
    for batch in batches_of(images, session.shape):
        outputs = session(batch)
        for name in names:
            value = outputs[f"{name}/max"]
            seen[name] = np.maximum(seen.get(name, value), value)
    return seen


def equalize(model: onnx.ModelProto, maxima: Mapping[str, np.ndarray]) -> tuple[onnx.ModelProto, int]:
    """Even out the channels behind every normalization that products alone read.

    Args:
        model: float32, with inferred shapes; it is not changed.
        maxima: by activation, [channels] largest absolute values, see `channel_maxima`.

    Returns:
        the model and how many products were evened out.
    """
    graph = import_graph(model)
    names = Names(graph, "even")

    def put(node: gs.Node, index: int, values: np.ndarray) -> None:
        """A constant of its own: the old one may have other readers."""
        node.inputs[index] = gs.Constant(names(node.inputs[index].name), values.astype(np.float32))

    read = {name: products for name, products in normalized_products(graph).items() if name in maxima}
    for name, products in read.items():
        weights = [node.inputs[1].values for node in products]
        largest = np.maximum(maxima[name], _LEAST).astype(np.float64)
        rows = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), _LEAST).astype(np.float64)
        factors = np.sqrt(largest / rows)
        factors /= np.exp(np.log(factors).mean())
        for reader, index in affine_of(graph.tensors()[name]) or []:
            put(reader, index, reader.inputs[index].values / factors)
        for node, weight in zip(products, weights, strict=True):
            put(node, 1, weight * factors[:, None])
    return export_graph(graph.cleanup(), model), sum(map(len, read.values()))
