"""Any image model's file, opened: static, its ends named, and its numbers as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import cnn
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.opened import open_model
from vitrim.exporter.graph.session import Session


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("opset", [12, 17])
def test_a_file_becomes_static_and_computes_the_same(tmp_path: Path, opset: int) -> None:
    opened = open_model(cnn(tmp_path / "m.onnx", opset=opset), 2)
    assert (opened.input, opened.output, opened.shape, opened.size) == ("pixels", "answer", (2, 3, 16, 16), 5)
    assert opened.opset == opset
    image = images(2, 3, 16, 16)
    wanted = Session(opened.original)({"pixels": image})["answer"]
    for model in (opened.model, opened.folded):
        assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
        np.testing.assert_allclose(Session(model)(image)["logits"], wanted, atol=1e-6)
    assert "Shape" in operator_table(opened.model)
    assert {"Shape", "Gather", "Concat"}.isdisjoint(operator_table(opened.folded))
    names = [node.name for node in opened.folded.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_batch_gives_what_the_file_gives_of_it(
    tmp_path_factory: pytest.TempPathFactory, batch: int, seed: int
) -> None:
    opened = open_model(cnn(tmp_path_factory.mktemp("any") / "m.onnx", seed=seed), batch)
    image = images(batch, 3, 16, 16, seed=seed)
    wanted = Session(opened.original)({"pixels": image})["answer"]
    np.testing.assert_allclose(Session(opened.folded)(image)["logits"], wanted, atol=1e-6)


def test_the_part_of_a_shape_that_is_asked_for_is_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Expand", ["row", "shape"], ["wide"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Mul", ["wide", "column"], ["y"]),
    ]
    held = {"rest": np.array([1]), "row": np.arange(6, dtype=np.float32)[None], "one": np.array([1])}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])]
    graph = helper.make_graph(nodes, "g", ends, out, tensors)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    opened = open_model(path, 2)
    image = images(2, 3, 4, 4)
    assert opened.size == 6
    np.testing.assert_allclose(
        Session(opened.folded)(image)["logits"], Session(opened.original)({"x": image})["y"], atol=1e-6
    )


def test_what_cannot_be_taken_is_one_line(tmp_path: Path) -> None:
    fixed = cnn(tmp_path / "fixed.onnx", batch=3)
    assert open_model(fixed).shape[0] == 3
    for arguments, words in (
        ((fixed, 2), r"has a fixed batch of 3, not 2; leave --batch out"),
        ((fixed, None, "nothing"), r"has no output 'nothing'; it has answer \[3, 5\], map \[3, 8, 8, 8\]"),
        ((fixed, None, "map"), r"vitrim proves and times models that give float32 \[3, numbers\]"),
        ((tmp_path / "none.onnx",), "none.onnx"),
    ):
        with pytest.raises(InputError, match=words) as error:
            open_model(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("two inputs", "has the inputs pixels, more; vitrim takes models of one image"),
        ("open size", r"dimension 2 of the input pixels is open \(height\), and only the batch may be"),
        ("uint8", r"the input pixels is uint8 of 4 dimensions; vitrim takes a float32 image"),
    ],
)
def test_an_input_that_is_no_image_is_named(tmp_path: Path, change: str, words: str) -> None:
    model = onnx.load(cnn(tmp_path / "m.onnx"))
    kind = model.graph.input[0].type.tensor_type
    if change == "two inputs":
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    elif change == "open size":
        kind.shape.dim[2].dim_param = "height"
    else:
        kind.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=words):
        open_model(tmp_path / "m.onnx")
