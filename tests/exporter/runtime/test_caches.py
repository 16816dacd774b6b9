"""What caches are bound to: the graph, not where it came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.caches import graph_hash


def model(value: float = 1.0, **metadata: str) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.full((3, 3), value, np.float32), "w")
    kind = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    made = helper.make_model(graph)
    for key, text in metadata.items():
        made.metadata_props.add(key=key, value=text)
    return made


def test_metadata_changes_no_cache_and_weights_do(tmp_path: Path) -> None:
    path, found = tmp_path / "model.onnx", []
    for one in (model(), model(recipe="runs: 5"), model(recipe="runs: 500", versions="more"), model(2.0)):
        path.write_bytes(one.SerializeToString())
        found.append(graph_hash(path))
    assert found[0] == found[1] == found[2] != found[3]
    path.write_bytes(model().SerializeToString() + onnx.ModelProto(producer_name="x").SerializeToString())
    assert graph_hash(path) not in found


def test_weights_beside_the_graph_count(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())
    alone = graph_hash(path)
    Path(f"{path}.data").write_bytes(b"weights")
    first = graph_hash(path)
    Path(f"{path}.data").write_bytes(b"other weights")
    assert len({alone, first, graph_hash(path)}) == 3


@pytest.mark.parametrize("data", [b"", b"no onnx at all", b"\xff" * 40, b"\x72\xff", b"\x0d1234", b"\x3a\x7fshort"])
def test_what_is_no_onnx_file_is_hashed_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert graph_hash(path) == sha256(path)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*model\.onnx: no such file"):
        graph_hash(tmp_path / "model.onnx")
