"""The patch embedding of a graph: one convolution whose patches neither overlap nor leave gaps, and its tokens.

Or a product of rows that are such patches, as `passes.patch_rows` makes it.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from .passes.base import Builder, constant, only_consumer, producer, static_shape

CUT = [0, 2, 4, 1, 3, 5]  # [batch, channels, high, rows, wide, columns] with the channels behind the places


def why_no_patches(conv: gs.Node) -> str | None:
    """Why a convolution does not cut an image into patches, as words behind its name; None: it does."""
    weight, image = constant(conv.inputs[1]), static_shape(conv.inputs[0])
    if weight is None or image is None or len(image) != 4:
        return "has no constant weight, or an image of no static shape"
    kernel = list(weight.shape[2:])
    if any(conv.attrs.get("pads", [0])) or conv.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "pads the image with zeros, which are no pixels once the mean is folded in"
    if conv.attrs.get("group", 1) != 1 or any(step != 1 for step in conv.attrs.get("dilations", [1])):
        return "is grouped or dilated"
    if list(conv.attrs.get("strides", [1, 1])) != kernel:
        return f"has the kernel {kernel} and other strides, so its patches overlap or leave gaps"
    if any(whole % part for whole, part in zip(image[2:], kernel, strict=True)):
        return f"has the kernel {kernel}, which does not divide the image {image[2:]}"
    return None


def tokens_of(conv: gs.Node) -> gs.Tensor | None:
    """The convolution's output with the channels last: [batch, tokens, width] or [batch, rows, columns, width].

    Returns:
        None where it is not laid out as tokens next.
    """
    out = conv.outputs[0]
    shape, reader = static_shape(out) or [], only_consumer(out)
    if reader is None or len(shape) != 4:
        return None
    batch, width = shape[0], shape[1]
    if reader.op == "Reshape" and static_shape(reader.outputs[0]) == [batch, width, prod(shape[2:])]:
        turned = only_consumer(reader.outputs[0])
        if turned is not None and turned.op == "Transpose" and list(turned.attrs["perm"]) == [0, 2, 1]:
            return turned.outputs[0]
    if reader.op == "Transpose" and list(reader.attrs["perm"]) == [0, 2, 3, 1]:
        grid = reader.outputs[0]
        flat = only_consumer(grid)
        rows = [batch, prod(shape[2:]), width]
        is_flat = flat is not None and flat.op == "Reshape" and static_shape(flat.outputs[0]) == rows
        return flat.outputs[0] if flat is not None and is_flat else grid
    return None


def as_rows(build: Builder, image: gs.Tensor, view: list[int], perm: list[int], tokens: list[int]) -> gs.Tensor:
    """An image cut into patches, each a row: two views, and a transpose between them.

    Args:
        build: adds the nodes.
        image: float32.
        view: its shape with rows and columns taken apart.
        perm: that brings together what is of one patch.
        tokens: shape of what the patches become, [.., width].

    Returns:
        [.., values of a patch].
    """
    x = build.node("Reshape", [image, build.const(view, "int64", "shape")], view, np.float32)
    x = build.node("Transpose", [x], [view[axis] for axis in perm], np.float32, perm=perm)
    flat = [*tokens[:-1], prod(view) // prod(tokens[:-1])]
    return build.node("Reshape", [x, build.const(flat, "int64", "shape")], flat, np.float32)


def patch_of(rows: gs.Tensor) -> tuple[int, int, int] | None:
    """Channels, rows and columns of the patches that the rows of a tensor are; None where they are none."""
    flat = producer(rows, "Reshape")
    turned = None if flat is None else producer(flat.inputs[0], "Transpose")
    if turned is None or list(turned.attrs.get("perm", [])) != CUT:
        return None
    cut = static_shape(turned.outputs[0]) or []
    return (cut[3], cut[4], cut[5]) if len(cut) == len(CUT) else None
