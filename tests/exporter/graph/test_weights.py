"""Weights beside their graph: where they are, how they are read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.weights import (
    LEAST,
    Place,
    Weights,
    goes_aside,
    inner_tensors,
    is_external,
    place_of,
    put_aside,
    size_of,
)

DRAW = np.random.default_rng(0)


def kept_in(folder: Path, array: np.ndarray, offset: int = 0) -> TensorProto:
    """An external tensor, its file written."""
    tensor = numpy_helper.from_array(array, "w")
    (folder / "w.data").write_bytes(bytes(offset) + tensor.raw_data)
    return put_aside(tensor, Place("w.data", offset, len(tensor.raw_data)))


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float16, np.float64, np.int8, np.int64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn],
)
@pytest.mark.parametrize("offset", [0, 4096, 3])
def test_values_are_a_view_of_the_file(dtype: Any, offset: int, tmp_path: Path) -> None:
    array = (DRAW.standard_normal((3, 5)) * 4).astype(dtype)
    tensor = kept_in(tmp_path, array, offset)
    assert place_of(tensor) == Place("w.data", offset, array.nbytes)
    found = Weights(tmp_path).array(tensor)
    assert (found.dtype, found.shape) == (array.dtype, (3, 5))
    assert found.tobytes() == array.tobytes()
    assert not found.flags.writeable
    assert not found.flags.owndata


@pytest.mark.parametrize("count", [4, 5])
def test_packed_types_are_unpacked(count: int, tmp_path: Path) -> None:
    array = np.arange(-2, count - 2).astype(ml_dtypes.int4)
    tensor = kept_in(tmp_path, array)
    assert size_of(tensor) == place_of(tensor).length == (count + 1) // 2
    assert Weights(tmp_path).array(tensor).astype(int).tolist() == list(range(-2, count - 2))


def test_scalars_empty_tensors_and_those_inside_are_read_too(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    assert weights.array(numpy_helper.from_array(np.float32(7), "s")) == 7
    assert weights.array(kept_in(tmp_path, np.array(5.0))).shape == ()
    assert weights.array(kept_in(tmp_path, np.zeros((0, 3), np.float32))).shape == (0, 3)


def test_what_goes_aside_is_large_and_no_integer() -> None:
    assert goes_aside(TensorProto.FLOAT, LEAST)
    assert goes_aside(TensorProto.INT8, LEAST)
    assert not goes_aside(TensorProto.FLOAT, LEAST - 1)
    assert not goes_aside(TensorProto.INT64, 100 * LEAST)
    assert goes_aside(TensorProto.FLOAT16, 10, least=10)


def test_a_missing_or_short_file_is_one_line(tmp_path: Path) -> None:
    tensor = kept_in(tmp_path, np.ones(10, np.float32))
    weights = Weights(tmp_path, "m.onnx")
    (tmp_path / "w.data").write_bytes(bytes(39))
    with pytest.raises(InputError, match=r"^m.onnx keeps its weights in w.data, which is too short; put the whole"):
        weights.array(tensor)
    (tmp_path / "w.data").unlink()
    with pytest.raises(InputError, match=r"^m.onnx keeps its weights in w.data, which is missing; put the whole"):
        weights.array(tensor)


@pytest.mark.parametrize("place", ["../w.data", "/etc/passwd", "inner/../../w.data", "link.data"])
def test_a_file_outside_of_the_folder_is_refused(place: str, tmp_path: Path) -> None:
    tensor = kept_in(tmp_path, np.ones(10, np.float32))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.data").symlink_to(tmp_path / "w.data")
    tensor.external_data[0].value = place
    with pytest.raises(InputError, match=r"wants its weights from .*, outside its own folder; save it anew"):
        Weights(inner).array(tensor)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("offset", "twelve", "does not say where its weight w is"),
        ("offset", "-4", "keeps its weights in w.data, which is too short"),
        ("length", "36", "gives its weight w 36 bytes, which do not fit its type and shape"),
        ("location", "a\0b", "does not say where its weight w is"),
        ("location", "", "keeps its weights in , which is missing"),
    ],
)
def test_a_place_that_is_none_is_one_line(key: str, value: str, reason: str, tmp_path: Path) -> None:
    tensor = kept_in(tmp_path, np.ones(10, np.float32))
    next(entry for entry in tensor.external_data if entry.key == key).value = value
    with pytest.raises(InputError, match=reason):
        Weights(tmp_path).array(tensor)


@pytest.mark.parametrize(("field", "value"), [("data_type", 999), ("data_type", 0), ("data_type", 8), ("dims", -10)])
def test_a_type_or_shape_that_is_none_is_one_line(field: str, value: int, tmp_path: Path) -> None:
    tensor = kept_in(tmp_path, np.ones(10, np.float32))
    if field == "dims":
        tensor.dims[0] = value
    else:
        tensor.data_type = value
    with pytest.raises(InputError, match="gives its weight w 40 bytes, which do not fit its type and shape"):
        Weights(tmp_path).array(tensor)


def test_a_file_without_a_length_is_read_by_its_shape(tmp_path: Path) -> None:
    tensor = kept_in(tmp_path, np.arange(10, dtype=np.float32))
    del tensor.external_data[2]
    assert Weights(tmp_path).array(tensor).tolist() == list(range(10))


def test_tensors_inside_of_nodes_are_found() -> None:
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["o"], value=numpy_helper.from_array(np.ones(1, np.float32), "c"))
    held = [numpy_helper.from_array(np.ones(1, np.float32), "inner")]
    branches = [
        helper.make_graph([constant], "a", [], [value]),
        helper.make_graph([helper.make_node("Identity", ["inner"], ["o"])], "b", [], [value], held),
    ]
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [value], held))
    found = list(inner_tensors(model))
    assert sorted(tensor.name for tensor in found) == ["c", "inner"]
    assert not any(map(is_external, found))
    assert isinstance(found[0], onnx.TensorProto)
