"""int8 by Intel's NNCF (the extra `openvino`), within the products that vitrim allows.

::

    x --MatMul(W)--  =>  x --Mul(1/s)--Q--DQ--MatMul(DQ(W8 of s W))--        s: SmoothQuant's, where asked for

NNCF is told to leave every node alone but the products with a weight: what decides, merges or multiplies two
activations stays as it is. It keeps the names of all nodes. Its bias correction is off: on DeiT-Ti and ViT-Ti it
changed the agreement by no more than chance (`docs/precision.md`).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.errors import EnvironmentLackError, UnsupportedError, excerpt
from ..passes.base import producer, through
from ..shapes import with_shapes
from ..surgery import copy_of, export_graph, import_graph, peek
from .qdq import as_from, products_alone, weights_apart
from .ranges import batches_of

MISSING = "precision.tool: nncf is not installed: pip install 'vitrim[openvino]', or take precision.tool=onnxruntime"
_SMOOTH = "/nncf_smooth_quant"  # ends the names of the nodes that it adds for SmoothQuant
_OFF = -1.0


def with_nncf(
    model: onnx.ModelProto, products: Collection[str], pieces: Iterable[np.ndarray], *, smooth: bool
) -> onnx.ModelProto:
    """Q/DQ pairs around some products, placed and calibrated by NNCF.

    Args:
        model: float32, of one input, with inferred shapes; it is not changed.
        products: names of those to quantize, of `qdq.quantizable`.
        pieces: calibration images, [n, ...] as the graph takes them.
        smooth: whether channels are evened out first, by SmoothQuant.

    Returns:
        the model with inferred shapes, its names and metadata as they were.

    Raises:
        EnvironmentLackError: NNCF is not installed.
        UnsupportedError: it fails on this graph; its reason in one line.
    """
    try:
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters
    except ImportError as error:
        raise EnvironmentLackError(MISSING) from error
    if not products:
        return with_shapes(copy_of(model))
    source = model.graph.input[0]
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    feeds = [{source.name: batch} for batch in batches_of(pieces, shape)]
    own = {} if smooth else {"smooth_quant_alphas": AdvancedSmoothQuantParameters(convolution=_OFF, matmul=_OFF)}
    try:
        with _silent():
            quantized = nncf.quantize(
                weights_apart(model, products),
                nncf.Dataset(feeds),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(
                    names=[node.name for node in model.graph.node if node.name not in products], validate=False
                ),
                advanced_parameters=AdvancedQuantizationParameters(disable_bias_correction=True, **own),
            )
    except Exception as error:  # it raises what its parts raise
        raise UnsupportedError(f"NNCF fails on this graph: {excerpt(str(error), 200)}") from error
    return with_shapes(products_alone(as_from(model, quantized), products))


def nncf_restored(quantized: onnx.ModelProto, model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A quantized graph with some of its products in float32 again; what SmoothQuant did before them stays.

    Args:
        quantized: of `with_nncf`; it is not changed.
        model: the float32 graph that it was made from.
        nodes: names of the products.
    """
    graph = import_graph(quantized)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weight_of = {node.name: node.input[1] for node in model.graph.node if node.name in nodes}
    for node in graph.nodes:
        back = producer(node.inputs[0], "DequantizeLinear") if node.name in weight_of else None
        if back is not None:
            activation = back.inputs[0].inputs[0].inputs[0]  # of DQ: q, Q, x
            values = onnx.numpy_helper.to_array(weights[weight_of[node.name]])
            smoothed = producer(through(activation, "Slice"), "Mul")
            if smoothed is not None and smoothed.name.endswith(_SMOOTH):
                factors = next(peek(tensor) for tensor in smoothed.inputs if isinstance(tensor, gs.Constant))
                values = values / factors.reshape(-1, 1)
            node.inputs = [activation, gs.Constant(f"{node.name}_float32", values)]
    graph.cleanup()
    return export_graph(graph, quantized)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """It shows progress on the terminal, and logs advice."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
