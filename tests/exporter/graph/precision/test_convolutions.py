"""int8 between convolutions: which graphs it is for, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_files import cnn, vit_file

from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.opened import open_model
from vitrim.exporter.graph.precision.convolutions import (
    BETWEEN,
    PRODUCTS,
    is_convolutional,
    products_of,
    with_whole_qdq,
)
from vitrim.exporter.graph.precision.ranges import quantization_ranges
from vitrim.exporter.graph.session import Session


@pytest.mark.parametrize("symmetric", [False, True])
def test_convolutions_between_the_first_and_the_classifier_are_int8(tmp_path: Path, symmetric: bool) -> None:
    model = open_model(cnn(tmp_path / "m.onnx"), 2).folded
    assert is_convolutional(model)
    assert len(products_of(model)) == 5
    products = products_of(model)[1:-1]
    images = np.random.default_rng(0).standard_normal((16, 3, 16, 16), dtype=np.float32)
    ranges = quantization_ranges(model, [images], "minmax", symmetric=symmetric, operators=(*PRODUCTS, *BETWEEN))
    made = with_whole_qdq(model, ranges, products, symmetric=symmetric)
    held = {tensor.name: tensor for tensor in made.graph.initializer}
    assert sum(tensor.data_type == 3 and len(tensor.dims) == 4 for tensor in held.values()) == 3  # INT8 kernels
    points = [node.input[2] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert {held[name].data_type for name in points} == {3 if symmetric else 2}
    assert operator_table(made)["QuantizeLinear"] >= 4
    before, after = (Session(each)(images[:2])["logits"] for each in (model, made))
    assert 0 < np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_a_transformer_is_none(tmp_path: Path) -> None:
    assert not is_convolutional(open_model(vit_file(tmp_path / "vit.onnx", depth=1)[0]).folded)
