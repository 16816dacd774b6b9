"""int8 for graphs whose work is in convolutions: every tensor between them is int8, as runtimes fuse such graphs.

::

    x --Conv--Relu--Conv--Add  =>  x --Conv--Q-DQ--Relu--Q-DQ--Conv(DQ(W8))--Q-DQ--Add--Q-DQ

A Vision Transformer's products stand alone between float operators (`qdq`); here a pair that ends an operator begins
the next one. The first convolution and the last product, which are little work and most of the error, stay in float32.
"""

from __future__ import annotations

from typing import Any

import onnx

from ..shapes import with_shapes
from ..surgery import copy_of
from .qdq import like, silent

PRODUCTS = ("Conv", "Gemm", "MatMul")
BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether most of a graph's products with a weight are convolutions."""
    kinds = [node.op_type for node in _weighted(model)]
    return kinds.count("Conv") > len(kinds) / 2 and kinds.count("Conv") > 2


def products_of(model: onnx.ModelProto) -> list[str]:
    """Names of the products with a weight, in the order of the graph; all but the first and the last may be int8."""
    return [node.name for node in _weighted(model)]


def _weighted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in weights]


def with_whole_qdq(model: onnx.ModelProto, ranges: Any, products: list[str], *, symmetric: bool) -> onnx.ModelProto:
    """Q/DQ pairs around products and what lies between them.

    Args:
        model: float32, with inferred shapes, all weights in it; it is not changed.
        ranges: onnxruntime's `TensorsData`, of every value; see `ranges.quantization_ranges`.
        products: names of those that become int8.
        symmetric: signed activations without a zero point, as TensorRT wants them; else unsigned ones with one.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    between = [node.name for node in model.graph.node if node.op_type in BETWEEN]
    with silent():
        quantizer = QDQQuantizer(
            copy_of(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[*products, *between],
            nodes_to_exclude=[],
            op_types_to_quantize=[*PRODUCTS, *BETWEEN],
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return with_shapes(like(model, quantizer.model.model))
