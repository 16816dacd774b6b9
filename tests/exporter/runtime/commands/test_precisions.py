"""A bundle on a device: its precision reaches the builder, its engine is proven and published, what ran it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import chooser, doubler

from vitrim import api
from vitrim import cli_output as screen
from vitrim.exporter.core.errors import EnvironmentLackError, UnsupportedError
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.runtime import bundle
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.commands import bench
from vitrim.exporter.runtime.commands.bench import bench_bundle
from vitrim.exporter.runtime.commands.build import build_bundle
from vitrim.exporter.runtime.commands.check import check_bundle
from vitrim.exporter.runtime.parity import Limits, Parity
from vitrim.exporter.runtime.rungs import compare
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.exporter.runtime.tensorrt.options import EngineOptions

QUICK = Timing(runs=6, warmup=0, threads=1)


def make(folder: Path, **entries: Any) -> Path:
    """A bundle whose graph doubles, like the stand-in's engines."""
    folder.mkdir()
    for name in ("model", "dense"):
        (folder / f"{name}.onnx").write_bytes(doubler())
    image = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    golden = {"logits": 2 * image}
    np.savez(folder / "golden.npz", image=image, **golden)
    rung = compare("onnx", golden, golden, atol=1e-3, tie=1e-3)
    Parity(1e-3, 1e-3, (rung,)).write(folder / "parity.json")
    bundle.write_manifest(folder, {"vitrim": "0"}, ["vitrim"], **entries)
    return folder


FP16 = {"precision": {"name": "fp16", "float32_nodes": ["/blocks.0/norm"]}, "target": "trt-8.6"}


def test_the_manifest_s_precision_reaches_the_builder(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.6.1")
    seen.inspection = fake_trt.inspection("Half", fused=False)
    root = make(tmp_path / "b", **FP16)
    result = api.build(root, workspace_mib=64, version_compatible=True, timing_cache=tmp_path / "timings")
    assert seen.config.flags == {"FP16", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    assert [layer.name for layer in seen.network.layers if layer.precision is not None] == [
        "/blocks.0/norm",
        "/blocks.0/norm_1",
    ]
    assert seen.config.limits == {"workspace": 64 << 20}
    assert len(list((tmp_path / "timings").iterdir())) == 1
    assert result.engine is not None
    assert (result.passed, result.engine.precision) == (True, "fp16")
    manifest = bundle.verify(root, needs=("model.engine", "model.engine.json"))
    assert (manifest.engine, manifest.precision.to_json()) == ("built", FP16["precision"])
    assert manifest.target == "trt-8.6"
    assert json.loads((root / "parity.json").read_text())["engine"]["layers"]["precisions"] == {"fp16": 1}


def test_the_screen_tells_precision_attention_and_options(fake_trt: Any, tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    seen = fake_trt.install("10.3.0")
    seen.inspection, seen.dla = fake_trt.inspection("Half", fused=False), 1
    seen.on_dla = lambda layer: layer.name == "/blocks.0/topk"
    result = api.build(make(tmp_path / "b", **FP16), dla_core=0, timing_cache=False)
    out = StringIO()
    screen.print_parity(result, Console(file=out, width=300))
    said = out.getvalue()
    assert "Engine: fp16, strongly typed because the graph holds fp16; all 1 matrix layers run in fp16" in said
    assert "Attention: 0 fused, 1 not: no rule of NVIDIA's is broken" in said
    assert "DLA core 0: 2 layers run on the GPU (/blocks.0/norm, /blocks.0/norm_1)" in said


def test_an_engine_in_another_precision_is_not_published(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Float")
    root = make(tmp_path / "b", **FP16)
    with pytest.raises(UnsupportedError, match="not fp16: 2 of 2"):
        build_bundle(root)
    assert "model.engine" not in bundle.verify(root).files
    assert not build_bundle(root, EngineOptions(strict=False)).engine.layers.passed
    assert "model.engine" in bundle.verify(root).files


def test_the_dense_graph_is_built_like_the_bundle_s_own_engine(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("8.6.1")
    seen.inspection = fake_trt.inspection("Half")
    root = make(tmp_path / "b", **FP16)
    build_bundle(root, EngineOptions(hardware_compatible="ampere_plus"))
    built: list[tuple[str, EngineOptions, dict[str, Any]]] = []
    real = bench.build_engine

    def build(onnx: Path, plan: Path, options: EngineOptions, **more: Any) -> Any:
        built.append((Path(onnx).name, options, more))
        return real(onnx, plan, options, **more)

    monkeypatch.setattr(bench, "build_engine", build)
    result = bench_bundle(root, QUICK)
    ((name, options, more),) = built
    assert name == "dense.onnx"
    assert (more["precision"], more["pinned"], more["pins_may_miss"]) == ("fp32", (), True)
    assert (options.hardware_compatible, options.version_compatible) == ("ampere_plus", False)
    assert result.runtime == "tensorrt-8.6.1"


@pytest.mark.parametrize(("target", "said"), [("ort-cpu", None), ("trt-10.3", "the graph is for trt-10.3")])
def test_check_and_bench_say_when_only_the_cpu_ran(target: str, said: str | None, tmp_path: Path) -> None:
    root = make(tmp_path / "b", target=target)
    checked = check_bundle(root)
    timed = bench_bundle(root, QUICK)
    assert checked.passed
    assert timed.runtime == "onnxruntime-cpu"
    for found in (checked.cpu_only, timed.environment["cpu_only"]):
        assert found is None if said is None else str(found).startswith(said)


CLOSE = Limits(cosine=0.9995, agreement=0.99)


def make_half(folder: Path, *, ties: int = 1, half_io: bool = False, **golden: np.ndarray) -> Path:
    """A bundle in fp16 held by `close`, whose golden outputs are float32's, but for the first images' choices."""
    folder.mkdir()
    model, image = chooser(), np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    image[:, :2] = [4, 3]
    wanted = run_all(OrtRunner(model.SerializeToString()), image, 2)
    narrow = to_half(model, "fp16", (), half_io=half_io).model
    for name, graph in (("dense", model), ("model.fp32", model), ("model", narrow), ("floor", narrow)):
        (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    wanted["kept_1"][:ties] = [0, 2]
    wanted |= {"gap_1": np.full(8, 1e-5)} | golden
    np.savez(folder / "golden.npz", image=image.astype(np.float16) if half_io else image, **wanted)
    Parity(1e-5, 1e-4, (), CLOSE).write(folder / "parity.json")
    (folder / "budget.json").write_text("{}")
    bundle.write_manifest(folder, {}, [], precision={"name": "fp16", "float32_nodes": []}, target="ort-cpu", batch=2)
    return folder


def test_a_graph_of_another_precision_is_judged_by_cosine_and_answers(tmp_path: Path) -> None:
    root = make_half(tmp_path / "b")
    result = check_bundle(root)
    (rung,) = result.rungs
    assert (result.passed, result.close, result.smallest_atol) == (True, CLOSE, None)
    assert (rung.strict, rung.unproven, rung.stages[0].differing) == (False, 1, 1)
    for stricter in ({"atol": 1e-6}, {"tie": 1e-6}):
        strict = check_bundle(root, **stricter)
        assert (strict.passed, strict.rungs[0].strict, strict.close) == (False, True, None)
    assert check_bundle(root, atol=0.1).passed


def test_a_bundle_in_which_nothing_decides_alike_must_be_close_as_it_is(tmp_path: Path) -> None:
    (rung,) = check_bundle(make_half(tmp_path / "alike", ties=8)).rungs
    assert (rung.passed, rung.unproven, rung.equal) == (True, 8, None)
    wrong = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    result = check_bundle(make_half(tmp_path / "wrong", ties=8, logits=wrong))
    assert not result.passed
    assert result.rungs[0].reason.startswith("no image decides alike, and the mean cosine is")


@pytest.mark.parametrize("half_io", [False, True])
def test_onnxruntime_times_every_graph_in_its_own_precision(
    half_io: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, str] = {}
    real = bench.runner_for

    def runner(path: Path, target: Any, threads: int | None, precision: Any) -> Any:
        asked[path.name] = precision
        return real(path, target, threads, precision)

    monkeypatch.setattr(bench, "runner_for", runner)
    result = bench_bundle(make_half(tmp_path / "b", half_io=half_io), QUICK)
    assert asked == {"dense.onnx": "fp32", "model.onnx": "fp16", "floor.onnx": "fp16", "model.fp32.onnx": "fp32"}
    assert set(result.distributions) == {"dense", "pruned", "floor", "fp32"}
    assert result.bundle is not None
    assert result.bundle.precision == "fp16"


def test_an_engine_of_another_precision_is_judged_so_and_its_limits_are_kept(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Half")
    root = make(tmp_path / "b", **FP16)
    golden = dict(np.load(root / "golden.npz"))
    golden["logits"] = golden["logits"] * np.float32(1.001) + np.float32(1e-3)
    np.savez(root / "golden.npz", **golden)
    parity = Parity.read(root / "parity.json", "parity report")
    bundle.write_manifest(root, {"vitrim": "0"}, ["vitrim"], **FP16)
    assert not build_bundle(root).passed
    replace(parity, close=CLOSE).write(root / "parity.json")
    bundle.write_manifest(root, {"vitrim": "0"}, ["vitrim"], **FP16)
    assert build_bundle(root).passed
    written = Parity.read(root / "parity.json", "parity report")
    assert (written.close, [rung.strict for rung in written.rungs]) == (CLOSE, [True, False])
    assert written.smallest_atol == 0.0
    assert [rung.strict for rung in check_bundle(root).rungs] == [False, False]


def test_onnxruntime_is_not_asked_for_bf16(tmp_path: Path) -> None:
    root = make(tmp_path / "b", precision={"name": "bf16", "float32_nodes": []}, target="trt-10.13")
    with pytest.raises(
        EnvironmentLackError, match="nothing was checked: onnxruntime runs no bf16 graphs; .* no model.e"
    ):
        check_bundle(root)
    with pytest.raises(EnvironmentLackError, match="onnxruntime runs no bf16 graphs, and no engine is timed"):
        bench_bundle(root, QUICK)
