"""Which convolutions cut an image into patches, and where their tokens are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from vitrim.exporter.graph.patches import CUT, patch_of, tokens_of, why_no_patches

KERNEL = {"strides": [4, 4]}


def convolution(image: tuple[int, ...] = (2, 3, 8, 12), **attrs: Any) -> gs.Node:
    """Six channels out of patches of 4 x 4."""
    weight = gs.Constant("weight", np.ones((6, 3, 4, 4), np.float32))
    out = gs.Variable("out", np.float32, [2, 6, 2, 3])
    inputs = [gs.Variable("image", np.float32, list(image)), weight]
    return gs.Node("Conv", "proj", attrs=KERNEL | attrs, inputs=inputs, outputs=[out])


def then(tensor: gs.Tensor, op: str, shape: list[int], **attrs: Any) -> gs.Tensor:
    """What a node makes of a tensor."""
    out = gs.Variable(f"{tensor.name}_{op}", np.float32, shape)
    gs.Node(op, op, attrs=attrs, inputs=[tensor], outputs=[out])
    return out


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({}, None),
        ({"pads": [0, 0, 0, 0], "auto_pad": "VALID", "dilations": [1, 1]}, None),
        ({"pads": [1, 1, 1, 1]}, "pads the image with zeros"),
        ({"auto_pad": "SAME_UPPER"}, "pads the image with zeros"),
        ({"dilations": [2, 2]}, "is grouped or dilated"),
        ({"group": 3}, "is grouped or dilated"),
        ({"strides": [2, 2]}, "has the kernel [4, 4] and other strides"),
        ({"image": (2, 3, 8, 14)}, "has the kernel [4, 4], which does not divide the image [8, 14]"),
        ({"image": (2, 3, 8)}, "has no constant weight, or an image of no static shape"),
    ],
)
def test_what_cuts_no_patches_says_why(attrs: dict[str, Any], said: str | None) -> None:
    found = why_no_patches(convolution(**attrs))
    assert (found is None) if said is None else (found or "").startswith(said)


def test_tokens_come_next_as_a_row_or_as_a_grid() -> None:
    row = convolution()
    tokens = then(then(row.outputs[0], "Reshape", [2, 6, 6]), "Transpose", [2, 6, 6], perm=[0, 2, 1])
    assert tokens_of(row) is tokens
    grid = convolution()
    tokens = then(grid.outputs[0], "Transpose", [2, 2, 3, 6], perm=[0, 2, 3, 1])
    assert tokens_of(grid) is tokens
    flat = then(tokens, "Reshape", [2, 6, 6])
    assert tokens_of(grid) is flat
    other = convolution()
    then(other.outputs[0], "Relu", [2, 6, 2, 3])
    assert tokens_of(other) is None
    assert tokens_of(convolution()) is None  # nobody reads it


def test_rows_that_are_patches_say_what_they_were_cut_from() -> None:
    view = gs.Variable("view", np.float32, [2, 3, 2, 4, 5, 6])
    cut = then(view, "Transpose", [2, 2, 5, 3, 4, 6], perm=CUT)
    assert patch_of(then(cut, "Reshape", [2, 10, 72])) == (3, 4, 6)
    assert patch_of(cut) is None
    turned = then(gs.Variable("other", np.float32, [2, 10, 72]), "Transpose", [2, 72, 10], perm=[0, 2, 1])
    assert patch_of(then(turned, "Reshape", [2, 10, 72])) is None
