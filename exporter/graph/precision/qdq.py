"""int8 written into a float32 graph: which products, and Q/DQ pairs around them by onnxruntime's quantizer.

::

    x --MatMul(W)--Add  =>  x --Q--DQ--MatMul(DQ(W8))--Add

Only products with a weight are quantized: the projections of attention and the MLPs. Scores, softmaxes, normalizations
and products of two activations stay as they are, and so does the classifier. Weights are symmetric with one scale a
channel. Only what such a product reads goes through Q/DQ, not what it writes: what follows (a bias, a residual, a
softmax) is float anyway.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..passes.base import Builder, producer, static_shape, through
from ..shapes import with_shapes
from ..surgery import copy_of, export_graph, import_graph
from .float32_nodes import QDQ, carrying_nodes

Scheme = Literal["onnxruntime", "tensorrt"]
_MOVES = ("Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Names of the products with a weight inside the blocks, in the order of the graph.

    The first product (the patch embedding), the last one (the classifier) and those of scores with constants (sums,
    running sums) are not among them.

    Args:
        model: float32, with inferred shapes; its first output are the logits.
    """
    graph = import_graph(model)
    carrying = carrying_nodes(graph)
    last = producer(through(graph.outputs[0], *_MOVES, "Add"))
    ends = {tensor.name for tensor in graph.inputs}
    return [
        node.name
        for node in graph.nodes
        if node.op == "MatMul" and node.name in carrying and node is not last
        if isinstance(node.inputs[1], gs.Constant) and len(node.inputs[1].shape) == 2
        if through(node.inputs[0], *_MOVES).name not in ends
    ]


def product_sizes(model: onnx.ModelProto, nodes: Collection[str]) -> dict[str, tuple[int, int, int]]:
    """Rows, inner size and columns of some products of a graph with inferred shapes, by name."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    found = {}
    for node in model.graph.node:
        if node.name in nodes:
            inner, columns = weights[node.input[1]]
            found[node.name] = (math.prod(sizes[node.output[0]][:-1]), int(inner), int(columns))
    return found


def with_qdq(model: onnx.ModelProto, ranges: Any, nodes: Collection[str], scheme: Scheme) -> onnx.ModelProto:
    """Q/DQ pairs around some products.

    Args:
        model: float32, with inferred shapes; it is not changed.
        ranges: onnxruntime's `TensorsData`, see `ranges.quantization_ranges`.
        nodes: products to quantize, of `quantizable`.
        scheme: `tensorrt` writes signed symmetric activations and keeps float weights behind a pair of their own, as
            its parsers of 8.x want; `onnxruntime` unsigned ones with a zero point and int8 weights.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    if not nodes:
        return copy_of(model)
    tensorrt = scheme == "tensorrt"
    options = {
        "ActivationSymmetric": tensorrt,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": tensorrt,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["MatMul"],
    }
    with silent():
        quantizer = QDQQuantizer(
            weights_apart(model, nodes),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=sorted(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul"],
            extra_options=options,
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return with_shapes(products_alone(like(model, quantizer.model.model), nodes))


def products_alone(quantized: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Let all but the products read activations as they are: a quantizer changes one for all of its readers.

    Rows of a normalization that are cut out for queries would else be rounded twice, or with the scale of all rows, in
    whatever form the product that reads all rows is.

    Args:
        quantized: it is not changed.
        nodes: the products.
    """
    graph = import_graph(quantized)
    for node in list(graph.nodes):
        if node.op == "Slice":
            _pair_behind(graph, node)
    for node in graph.nodes:
        if node.name in nodes or node.op in QDQ:
            continue
        for index, tensor in enumerate(node.inputs):
            pair = _pair_before(tensor)
            if pair is not None:
                node.inputs[index] = pair[0].inputs[0]
    return export_graph(graph.cleanup().toposort(), quantized)


def _pair_before(tensor: gs.Tensor) -> tuple[gs.Node, gs.Node] | None:
    """The nodes that quantize and dequantize a value; None where it is not quantized on the way."""
    back = producer(tensor, "DequantizeLinear")
    pair = producer(back.inputs[0], "QuantizeLinear") if back is not None else None
    return None if back is None or pair is None else (pair, back)


def _pair_behind(graph: gs.Graph, node: gs.Node) -> None:
    """A pair before a node that moves values, behind it: a product then has one of its own."""
    found = _pair_before(node.inputs[0])
    if found is None:
        return
    pair, back = found
    out, build = node.outputs[0], Builder(graph, "pair")
    readers = [reader for reader in out.outputs if reader.op not in QDQ]  # the others have a pair already
    node.inputs[0] = pair.inputs[0]
    if not readers:
        return
    shape = static_shape(out)
    quantized = build.node("QuantizeLinear", [out, *pair.inputs[1:]], shape, back.inputs[0].dtype, **pair.attrs)
    again = build.node("DequantizeLinear", [quantized, *back.inputs[1:]], shape, np.float32, **back.attrs)
    for reader in readers:
        reader.inputs = [again if value is out else value for value in reader.inputs]


def restored(quantized: onnx.ModelProto, model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A quantized graph with some of its products in float32 again.

    Args:
        quantized: of `with_qdq`; it is not changed.
        model: the float32 graph that it was made from.
        nodes: names of the products; those that are in float32 anyway stay as they are.
    """
    graph = import_graph(quantized)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weight_of = {node.name: node.input[1] for node in model.graph.node if node.name in nodes}
    for node in graph.nodes:
        makers = node.inputs[0].inputs if node.name in weight_of else []
        if makers and makers[0].op == "DequantizeLinear":
            values = onnx.numpy_helper.to_array(weights[weight_of[node.name]])
            activation = node.inputs[0].inputs[0].inputs[0].inputs[0].inputs[0]  # MatMul, DQ, q, Q, x
            node.inputs = [activation, gs.Constant(f"{node.name}_float32", values)]
    graph.cleanup()
    return export_graph(graph, quantized)


def with_dynamic(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Products whose activations get their scale when they are there (`DynamicQuantizeLinear`, `MatMulInteger`).

    One scale a tensor, so an image's answer depends on the others of its batch.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not nodes:
        return copy_of(model)
    bare = copy_of(model)
    del bare.graph.value_info[:]  # the quantizer infers shapes itself, and refuses those that are there
    with silent(), tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            bare,
            file,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=sorted(nodes),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = onnx.load(file)
    return with_shapes(like(model, quantized))


def weights_apart(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A copy in which products that stay as they are have weights of their own: the quantizer changes one for all.

    A stage that chooses before its tokens ask has such a pair: the query that scores, and those of what stays.
    """
    copied = copy_of(model)
    weights = {tensor.name: tensor for tensor in copied.graph.initializer}
    shared = {node.input[1] for node in copied.graph.node if node.name in nodes}
    for node in copied.graph.node:
        for index, name in enumerate(node.input):
            if node.name not in nodes and name in shared:
                own = copied.graph.initializer.add()
                own.CopyFrom(weights[name])
                node.input[index] = own.name = f"{name}_of_{node.name}"
    return copied


def as_from(model: onnx.ModelProto, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """What a quantizer made, with the metadata of the model that it came from and nothing of its own."""
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    return quantized


def like(model: onnx.ModelProto, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """What onnxruntime's quantizer made, as from the model that it came from."""
    as_from(model, quantized)
    for node in quantized.graph.node:
        # Redundant beside a zero point, and onnxruntime 1.31 contradicts it when it turns signed into unsigned.
        for attribute in [a for a in node.attribute if a.name == "output_dtype" and len(node.input) > 2]:
            node.attribute.remove(attribute)
    return quantized


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The quantizer logs advice about preprocessing that has long been done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
