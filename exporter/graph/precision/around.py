"""Half precision around the int8 products of a graph, and float32 where that would harm.

::

    x16 --Q--DQ--MatMul(DQ(Q(W16)))-- y16                    a product whose numbers fp16 holds
    x32 --Q--DQ--MatMul(DQ(Q(W32)))-- y32 --Cast-- y16       one of which it does not: int8 between float32 ends

The graph's types say so, on OpenVINO (bf16) as on TensorRT (fp16). Before opset 19 pairs cannot be fp16, and TensorRT
takes a flag: the builder may then compute every float node in fp16 that is not pinned. What it does with a pinned pair,
no document says; so a product that fp16 would harm is no int8 there, but a pinned product of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from .float32_nodes import QDQ
from .guards import guard
from .half import Half, to_half
from .misfits import Misfits, quantized_products, whole_units
from .ranges import Extent, extents_of
from .sensitivity import Layout


@dataclass(frozen=True)
class Around:
    """An int8 graph whose other parts are in half precision.

    Attributes:
        model: with inferred shapes; in float32 where a flag is to make it fp16.
        as_half: the graph with the most half precision that the runtime may compute it in: itself, or what the flag
            allows.
        float32_nodes: names of the nodes that answer in float32, or by flag are to be pinned to it.
        found: those of them that are there for their numbers.
        casts: how many were added.
    """

    model: onnx.ModelProto
    as_half: onnx.ModelProto
    float32_nodes: tuple[str, ...]
    found: Misfits
    casts: int


def half_around(
    model: onnx.ModelProto,
    extents: Mapping[str, Extent],
    headroom: float,
    half: Half,
    named: Collection[str] = (),
    inner_float32: bool = False,
) -> Around:
    """Write half precision around int8 products by the graph's types.

    Args:
        model: with its pairs, in float32, with inferred shapes, of opset 19 or later.
        extents: of its activations; what pairs make of them needs none.
        headroom: see `misfits.misfits`.
        half: `fp16` or `bf16`.
        named: further nodes that stay in float32.
        inner_float32: see `Target.inner_float32`.

    Raises:
        UnsupportedError: a weight is no number.
    """
    guarded = guard(model, extents, headroom, named, inner_float32=inner_float32)
    typed = to_half(model, half, whole_units(quantized_products(model), guarded.nodes))
    return Around(typed.model, typed.model, typed.float32_nodes, guarded.found, typed.casts)


def fp16_around(
    make: Callable[[Layout], onnx.ModelProto],
    layout: Layout,
    images: Sequence[np.ndarray],
    headroom: float,
    named: Collection[str] = (),
    *,
    by_flag: bool,
) -> Around:
    """Write fp16 around int8 products for TensorRT.

    Args:
        make: gives the graph with its pairs, in float32 and with inferred shapes, of a layout of its products.
        layout: of the products.
        images: calibration images, pieces of [n, ...] as the graph takes them.
        headroom: see `misfits.misfits`.
        named: further nodes that stay in float32.
        by_flag: whether the builder chooses fp16 by a flag; else the graph's types say it (opset 19 and later).

    Raises:
        InputError: an activation is NaN or infinite in float32.
        UnsupportedError: a weight is no number.
    """
    model = make(layout)
    extents = extents_of(model, images)
    if not by_flag:
        return half_around(model, extents, headroom, "fp16", named)
    # Scales are float32 in the graph and in the engine: pairs have nothing of their own that fp16 could harm.
    pairs = {node.name for node in model.graph.node if node.op_type in QDQ}
    products = quantized_products(model)
    guarded = guard(model, extents, headroom, named, unjudged=pairs)
    stay = whole_units(products, guarded.nodes)
    model = make(replace(layout, floats=layout.floats | (stay & products.keys())))
    stay &= {node.name for node in model.graph.node}
    return Around(model, to_half(model, "fp16", stay).model, tuple(sorted(stay)), guarded.found, 0)
