"""A bundle on a device: its precision reaches the builder, its engine is proven and published, what ran it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import doubler

from vitrim import api, screen
from vitrim.exporter.errors import InputError, UnsupportedError
from vitrim.exporter.runtime import bundle, device, engine
from vitrim.exporter.runtime.parity import compare, ladder


def make(folder: Path, **entries: Any) -> Path:
    """A bundle whose graph doubles, like the stand-in's engines."""
    folder.mkdir()
    for name in ("model", "dense"):
        (folder / f"{name}.onnx").write_bytes(doubler())
    image = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    golden = {"logits": 2 * image}
    np.savez(folder / "golden.npz", image=image, **golden)
    rung = compare("onnx", golden, golden, atol=1e-3, tie=1e-3)
    (folder / "parity.json").write_text(json.dumps(ladder([rung], 1e-3, 1e-3)))
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
    assert (result["passed"], result["engine"]["precision"]) == (True, "fp16")
    manifest = bundle.verify(root, needs=("model.engine", "model.engine.json"))
    assert (manifest["engine"], manifest["precision"], manifest["target"]) == ("built", FP16["precision"], "trt-8.6")
    assert json.loads((root / "parity.json").read_text())["engine"]["layers"]["precisions"] == {"fp16": 1}


def test_the_screen_tells_precision_attention_and_options(fake_trt: Any, tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    seen = fake_trt.install("10.3.0")
    seen.inspection, seen.dla = fake_trt.inspection("Half", fused=False), 1
    seen.on_dla = lambda layer: layer.name == "/blocks.0/topk"
    result = api.build(make(tmp_path / "b", **FP16), dla_core=0, timing_cache=False)
    out = StringIO()
    screen.built(result, Console(file=out, width=300))
    said = out.getvalue()
    assert "Engine: fp16, strongly typed because the graph holds fp16; all 1 matrix layers run in fp16" in said
    assert "Attention: 0 fused, 1 not: no rule of NVIDIA's is broken" in said
    assert "DLA core 0: 2 layers run on the GPU (/blocks.0/norm, /blocks.0/norm_1)" in said


def test_an_engine_in_another_precision_is_not_published(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Float")
    root = make(tmp_path / "b", **FP16)
    with pytest.raises(UnsupportedError, match="not fp16: 2 of 2"):
        device.build_bundle(root)
    assert "model.engine" not in bundle.verify(root)["files"]
    assert device.build_bundle(root, strict=False)["engine"]["layers"]["passed"] is False
    assert "model.engine" in bundle.verify(root)["files"]


def test_dense_and_floor_are_built_like_the_bundle_s_own_engine(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("8.6.1")
    seen.inspection = fake_trt.inspection("Half")
    root = make(tmp_path / "b", **FP16)
    device.build_bundle(root, hardware_compatible="ampere_plus")
    built: list[dict[str, Any]] = []
    real = engine.build_engine

    def build(onnx: Path, plan: Path, **options: Any) -> Any:
        built.append({"graph": Path(onnx).name} | options)
        return real(onnx, plan, **options)

    monkeypatch.setattr(engine, "build_engine", build)
    result = device.bench_bundle(root, runs=6, warmup=0)
    (options,) = built
    assert options["graph"] == "dense.onnx"
    assert (options["precision"], options["pinned"], options["pins_may_miss"]) == ("fp16", ("/blocks.0/norm",), True)
    assert (options["hardware_compatible"], options["version_compatible"]) == ("ampere_plus", False)
    assert result["environment"]["runtime"] == "tensorrt-8.6.1"


@pytest.mark.parametrize(("target", "said"), [("ort-cpu", None), ("trt-10.3", "the graph is for trt-10.3")])
def test_check_and_bench_say_when_only_the_cpu_ran(target: str, said: str | None, tmp_path: Path) -> None:
    root = make(tmp_path / "b", target=target)
    checked = device.check_bundle(root)
    timed = device.bench_bundle(root, runs=6, warmup=0, threads=1)["environment"]
    assert checked["passed"]
    assert timed["runtime"] == "onnxruntime-cpu"
    for found in (checked.get("cpu_only"), timed["cpu_only"]):
        assert found is None if said is None else str(found).startswith(said)


def test_the_precision_of_a_manifest() -> None:
    assert device.precision_of({}) == ("fp32", ())
    assert device.precision_of(FP16) == ("fp16", ("/blocks.0/norm",))
    assert device.precision_of({"precision": {"name": "int8"}}) == ("int8", ())
    for broken in ({"name": "fp4"}, {}, ["fp16"], "fp16"):
        if broken:
            with pytest.raises(InputError, match="unknown to this vitrim"):
                device.precision_of({"precision": broken})
