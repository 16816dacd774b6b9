"""A file alone, to a bundle that check and bench take: equal to the file, without PyTorch, and honest where not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_files import cnn, vit_file

import vitrim
from vitrim import api
from vitrim.exporter.core.errors import InputError, NotFasterError, ParityError, UnsupportedError
from vitrim.exporter.graph.lint.check import operator_table
from vitrim.exporter.graph.passes import table
from vitrim.exporter.graph.passes.base import PatternPass
from vitrim.exporter.runtime.bench.report import report
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.optimize import run as optimize

QUICK: dict[str, Any] = {
    "bench": {"runs": 5, "warmup": 0.0, "allow_slower": True},
    "parity": {"images": 4, "golden": 2},
    "engine": "skip",
}


def same_as_file(folder: Path, path: Path, output: str, size: tuple[int, ...], atol: float = 1e-5) -> None:
    import onnxruntime

    image = np.random.default_rng(5).standard_normal(size, dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.run([output], {session.get_inputs()[0].name: image})[0]
    np.testing.assert_allclose(OrtRunner(folder / "model.onnx")(image)["logits"], wanted, atol=atol)


@pytest.mark.slow
def test_a_cnn_becomes_a_bundle_that_check_and_bench_take(tmp_path: Path) -> None:
    path, out = cnn(tmp_path / "m.onnx", opset=12), tmp_path / "out"
    done = vitrim.optimize(path, out, batch=2, **QUICK)
    assert done.parity.passed
    assert done.bench is not None
    names = {file.name for file in out.iterdir()}
    wanted = {"model.onnx", "dense.onnx", "golden.npz", "parity.json", "passes.json", "bench.json"}
    assert names == wanted | {"manifest.json", "README.md", "run_on_device.py"}
    manifest = verify_bundle(out)
    assert (manifest.batch, manifest.target) == (2, "ort-cpu")
    assert manifest.extra is not None
    assert manifest.extra["source"]["input"] == "pixels"
    assert api.check(out).passed
    assert api.bench(out, runs=5, warmup=0.0).batch == 2
    assert api.inspect(out)["findings"] == []
    same_as_file(out, path, "answer", (2, 3, 16, 16))
    run = [sys.executable, str(out / "run_on_device.py"), "check"]
    assert "ok" in subprocess.run(run, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", ["trt-8.5", "trt-rtx", "ort-cpu"])
def test_a_vit_is_rewritten_for_its_target_and_equal(tmp_path: Path, target: str) -> None:
    path, _ = vit_file(tmp_path / "vit.onnx", opset=17)
    done = api.optimize(path, tmp_path / "out", target=target, **QUICK)
    assert sum(one["count"] for one in done.passes) > 2  # type: ignore[union-attr]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert ("LayerNormalization" in operator_table(model)) == (target != "trt-8.5")
    same_as_file(tmp_path / "out", path, "y", (1, 3, 64, 64), 1e-4)


@pytest.mark.slow
def test_int8_of_convolutions_is_kept_where_it_holds(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((24, 3, 16, 16), dtype=np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    precision = {"name": "int8", "agreement": 0.5, "cosine": 0.9, "keep_slower": True}
    given = {**QUICK, "images": str(tmp_path / "images.npz"), "precision": precision}
    done = api.optimize(cnn(tmp_path / "m.onnx"), tmp_path / "out", **given)
    assert done.precision is not None
    assert (done.precision.name, done.precision.products) == ("int8", 3)
    assert api.check(tmp_path / "out").passed
    assert operator_table(onnx.load(tmp_path / "out" / "model.onnx"))["QuantizeLinear"] >= 3
    wild = {**given, "precision": {**precision, "agreement": 1.0, "calibrator": "percentile", "percentile": 51.0}}
    with pytest.raises(UnsupportedError, match="no product of this graph holds 100% of the top classes"):
        api.optimize(cnn(tmp_path / "m.onnx"), tmp_path / "wild", **wild)


@pytest.mark.slow
def test_a_pass_that_does_not_hold_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(graph: Any, match: Any, context: Any) -> None:
        match.attrs["strides"] = [1, 1]

    broken = PatternPass("broken strides", frozenset({"Conv"}), lambda node, context: node, spoil)
    monkeypatch.setattr(table, "PASSES", (broken, *table.PASSES))
    path = cnn(tmp_path / "m.onnx")
    done = api.optimize(path, tmp_path / "out", **QUICK)
    (line,) = done.left_out  # type: ignore[union-attr]
    assert line.startswith("left out, as it does not hold here, first at node Conv_0 (Conv): ")
    assert "'broken strides'" in line
    assert line in (tmp_path / "out" / "README.md").read_text()
    same_as_file(tmp_path / "out", path, "answer", (1, 3, 16, 16))


def test_what_a_target_refuses_is_named_by_its_node(tmp_path: Path) -> None:
    model = onnx.load(cnn(tmp_path / "m.onnx"))
    model.graph.node[1].name = "strange"
    model.graph.node[1].op_type = "Mish"
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="node strange is a Mish, which opset 17 does not have"):
        api.optimize(tmp_path / "m.onnx", tmp_path / "out", target="trt-8.5", **QUICK)
    assert not (tmp_path / "out").exists()


def test_not_faster_is_published_and_said_and_a_failed_proof_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cnn(tmp_path / "m.onnx")
    slow = {**QUICK, "bench": {"runs": 5, "warmup": 0.0}}
    same = np.linspace(1.0, 1.1, 60)
    equal = report({"dense": same, "pruned": same}, 1, {}, [60])
    monkeypatch.setattr(optimize, "bench_graphs", lambda *given: equal)
    with pytest.raises(NotFasterError, match="is published, but the optimised graph is .*--allow-slower") as error:
        api.optimize(path, tmp_path / "out", **slow)
    assert error.value.result.folder == tmp_path / "out"  # type: ignore[attr-defined]
    assert verify_bundle(tmp_path / "out")
    with pytest.raises(InputError, match="would be written over|is the ONNX file|the ONNX file"):
        api.optimize(path, path, **QUICK)
    flat = onnx.load(path)
    held = next(tensor for tensor in flat.graph.initializer if tensor.name == "fc.w")
    held.CopyFrom(onnx.numpy_helper.from_array(np.zeros((5, 8), np.float32), "fc.w"))
    onnx.save(flat, tmp_path / "flat.onnx")
    with pytest.raises(ParityError, match="unproven"):
        api.optimize(tmp_path / "flat.onnx", tmp_path / "flat", **QUICK)
    assert not (tmp_path / "flat").exists()


@pytest.mark.slow
def test_it_needs_no_pytorch(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", image=np.random.default_rng(0).standard_normal((8, 3, 16, 16), dtype=np.float32))
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'onnxscript', 'onnx_ir', 'polygraphy', 'matplotlib'): sys.modules[name] = None\n"
        "from vitrim import api\n"
        f"api.optimize({str(cnn(tmp_path / 'm.onnx'))!r}, {str(tmp_path / 'out')!r},"
        f" images={str(tmp_path / 'i.npz')!r},"
        " precision={'name': 'int8', 'agreement': 0.5, 'cosine': 0.9, 'keep_slower': True}, runs=5, warmup=0.0,"
        " allow_slower=True)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert api.check(tmp_path / "out").passed
