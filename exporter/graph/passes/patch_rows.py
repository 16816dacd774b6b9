"""The patch embedding as a product of the patches' rows, which OpenVINO computes in bfloat16, too.

::

    image f32 --Conv--Reshape--Transpose-- tokens
      =>
    image f32 --Reshape--Transpose--Reshape--MatMul--Add-- tokens

OpenVINO brings the image into another layout for a convolution. In bfloat16 a product takes half of the time; there a
convolution would need opset 22, and takes longer than the product all the same.

1. a convolution without padding, groups or dilation, whose stride is its kernel, and whose tokens come next, channels
   last;
2. not where 8-bit pixels are asked for: `io` makes them a product itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..patches import CUT, as_rows, tokens_of, why_no_patches
from .base import Builder, Context, PatternPass, constant, numpy_dtype, static_shape


@dataclass(frozen=True)
class Match:
    """A patch embedding.

    Attributes:
        conv: its convolution.
        tokens: what it makes, channels last.
    """

    conv: gs.Node
    tokens: gs.Tensor


def match(node: gs.Node, context: Context) -> Match | str | None:
    """Case 1."""
    if numpy_dtype(node.inputs[0]) != np.float32 or why_no_patches(node) is not None:
        return None
    tokens = tokens_of(node)
    return None if tokens is None else Match(node, tokens)


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """Cut the image into rows, and multiply them."""
    build, conv, tokens = Builder(graph, "patches"), found.conv, found.tokens
    image, weight, bias = conv.inputs[0], constant(conv.inputs[1]), conv.inputs[2:]
    batch, channels, height, across = static_shape(image) or []
    shape = static_shape(tokens) or []
    assert weight is not None
    rows, columns = weight.shape[2:]
    conv.inputs.clear()
    high, wide = height // rows, across // columns
    x = as_rows(build, image, [batch, channels, high, rows, wide, columns], CUT, shape)
    matrix = build.const(np.ascontiguousarray(weight.reshape(len(weight), -1).T), np.float32, "weight")
    if not bias:
        build.node("MatMul", [x, matrix], shape, np.float32, out=tokens)
        return
    x = build.node("MatMul", [x, matrix], shape, np.float32)
    build.node("Add", [x, bias[0]], shape, np.float32, out=tokens)


PATCH_ROWS = PatternPass(
    "patches as rows of a product",
    frozenset({"Conv"}),
    match,
    apply,
    lambda context: context.target.runtime == "openvino" and not context.pixels,
)
