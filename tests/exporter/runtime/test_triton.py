"""A bundle in a Triton model repository: its configuration is Triton's own, and nothing else is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluated_bundles import make_bundle

from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.runtime.bundles.manifest import read_manifest, renew_manifest
from vitrim.exporter.runtime.triton import write_model

WANTED = """# Written by vitrim from a bundle for ort-cpu. The batch is a part of the shapes.
name: "matrix"
platform: "onnxruntime_onnx"
max_batch_size: 0
input [ { name: "image" data_type: TYPE_FP32 dims: [ 2, 3, 8, 8 ] } ]
output [ { name: "logits" data_type: TYPE_FP32 dims: [ 2, 5 ] label_filename: "labels.txt" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
model_warmup [ { name: "zeros" inputs { key: "image" value { %s zero_data: true } } } ]
""".replace("%s", "data_type: TYPE_FP32 dims: [ 2, 3, 8, 8 ]")


def labelled(folder: Path) -> Path:
    out = make_bundle(folder)
    (out / "labels.json").write_text(json.dumps(["cat", "dog", "great\nwhite", "a", "b"]))
    renew_manifest(out, read_manifest(out))
    return out


def test_the_graph_goes_with_its_shapes_and_labels(tmp_path: Path) -> None:
    out = labelled(tmp_path / "out")
    folder = write_model(out, tmp_path / "models", "matrix")
    assert folder == tmp_path / "models" / "matrix"
    assert (folder / "config.pbtxt").read_text() == WANTED
    assert (folder / "labels.txt").read_text() == "cat\ndog\ngreat white\na\nb\n"
    assert (folder / "1" / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["matrix"]


def test_weights_that_several_graphs_have_go_with_it(tmp_path: Path) -> None:
    out = labelled(tmp_path / "out")
    name = f"weights-{'0' * 16}.data"
    (out / name).write_bytes(b"weights")
    renew_manifest(out, read_manifest(out))
    folder = write_model(out, tmp_path / "models")
    assert sorted(path.name for path in (folder / "1").iterdir()) == ["model.onnx", name]


def test_it_is_what_triton_s_schema_reads(tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
    from google.protobuf import text_format

    folder = write_model(labelled(tmp_path / "out"), tmp_path / "models", "matrix")
    read = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert list(read.input[0].dims) == [2, 3, 8, 8]
    assert read.output[0].label_filename == "labels.txt"


def test_an_engine_is_a_plan_on_a_gpu(tmp_path: Path) -> None:
    out = make_bundle(tmp_path / "out", target="trt-10.3")
    (out / "model.engine").write_bytes(b"plan")
    renew_manifest(out, read_manifest(out))
    folder = write_model(out, tmp_path / "models")
    assert (folder.name, (folder / "1" / "model.plan").read_bytes()) == ("out", b"plan")
    assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]
    text = (folder / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert "kind: KIND_GPU" in text


@pytest.mark.parametrize(
    ("entries", "engine", "words"),
    [
        ({"target": "trt-rtx"}, True, "Triton has no TensorRT for RTX"),
        ({"target": "openvino", "precision": {"name": "bf16", "float32_nodes": []}}, False, "in fp32, fp16 or int8"),
    ],
)
def test_what_triton_does_not_run_is_refused(tmp_path: Path, entries: dict, engine: bool, words: str) -> None:
    out = make_bundle(tmp_path / "out", **entries)
    if engine:
        (out / "model.engine").write_bytes(b"plan")
        renew_manifest(out, read_manifest(out))
    with pytest.raises(UnsupportedError, match=words):
        write_model(out, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_model_of_ours_is_replaced_and_no_other(tmp_path: Path) -> None:
    out, models = make_bundle(tmp_path / "out"), tmp_path / "models"
    write_model(out, models)
    (models / "out" / "1" / "stale").touch()
    write_model(out, models)
    assert not (models / "out" / "1" / "stale").exists()
    (models / "theirs").mkdir()
    (models / "theirs" / "config.pbtxt").write_text("name: 'theirs'")
    with pytest.raises(InputError, match="theirs is there and not written by vitrim"):
        write_model(out, models, "theirs")
    with pytest.raises(InputError, match="no name for a model"):
        write_model(out, models, "../up")
    with pytest.raises(InputError, match="in the bundle"):
        write_model(out, out)
    assert sorted(path.name for path in models.iterdir()) == ["out", "theirs"]
