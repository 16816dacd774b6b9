"""fp16 around the int8 products of a graph for TensorRT, and float32 where fp16 would harm.

::

    x16 --Q--DQ--MatMul(DQ(Q(W16)))-- y16                    a product whose numbers fp16 holds
    x32 --Q--DQ--MatMul(DQ(Q(W32)))-- y32 --Cast-- y16       one of which it does not: int8 between float32 ends

Strongly typed, the graph's types say so. Before opset 19 pairs cannot be fp16, and TensorRT takes a flag: the builder
may then compute every float node in fp16 that is not pinned. What it does with a pinned pair, no document says; so a
product that fp16 would harm is no int8 there, but a pinned product of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from .float32_nodes import QDQ, wide_nodes
from .half import to_half
from .misfits import Misfits, misfits, quantized_products, whole_units
from .ranges import extents_of
from .sensitivity import Layout


@dataclass(frozen=True)
class Around:
    """An int8 graph whose other parts are fp16.

    Attributes:
        model: with inferred shapes; in float32 where a flag is to make it fp16.
        as_fp16: the graph with the most fp16 that the engine may have: itself, or what the flag allows.
        float32_nodes: names of the nodes that answer in float32, or by flag are to be pinned to it.
        found: those of them that are there for their numbers.
        casts: how many were added.
    """

    model: onnx.ModelProto
    as_fp16: onnx.ModelProto
    float32_nodes: tuple[str, ...]
    found: Misfits
    casts: int


def fp16_around(
    make: Callable[[Layout], onnx.ModelProto],
    layout: Layout,
    images: Sequence[np.ndarray],
    headroom: float,
    wide: Collection[str] = (),
    *,
    by_flag: bool,
) -> Around:
    """Write fp16 around int8 products.

    Args:
        make: gives the graph with its pairs, in float32 and with inferred shapes, of a layout of its products.
        layout: of the products.
        images: calibration images, pieces of [n, ...] as the graph takes them.
        headroom: see `misfits.misfits`.
        wide: nodes that stay in float32 beside `float32_nodes.wide_nodes`.
        by_flag: whether the builder chooses fp16 by a flag; else the graph's types say it (opset 19 and later).

    Raises:
        InputError: an activation is NaN or infinite in float32.
        UnsupportedError: a weight is no number.
    """
    model = make(layout)
    products = quantized_products(model)
    stay = wide_nodes(gs.import_onnx(model)) | set(wide)
    # By flag, scales are float32 in the graph and in the engine: pairs have nothing of their own that fp16 could harm.
    pairs = {node.name for node in model.graph.node if node.op_type in QDQ} if by_flag else set()
    found = misfits(model, extents_of(model, images), "fp16", headroom, stay | pairs)
    stay = whole_units(products, stay | found.nodes)
    if not by_flag:
        typed = to_half(model, "fp16", stay)
        return Around(typed.model, typed.model, typed.float32_nodes, found, typed.casts)
    model = make(replace(layout, floats=layout.floats | (stay & products.keys())))
    stay &= {node.name for node in model.graph.node}
    return Around(model, to_half(model, "fp16", stay).model, tuple(sorted(stay)), found, 0)
