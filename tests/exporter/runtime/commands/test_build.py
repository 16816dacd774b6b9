"""A bundle's engine: built in its precision, proven, and published with it or not at all."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_bundles import CLOSE, FP16, doubling, named, two_sizes

from vitrim import api
from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.runtime.bundles.manifest import GraphPrecision, renew_manifest, write_manifest
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.commands.build import build_bundle
from vitrim.exporter.runtime.commands.check import check_bundle
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.marked import cache_folder, locked, write_marker
from vitrim.exporter.runtime.parity import Parity
from vitrim.exporter.runtime.tensorrt.options import EngineOptions
from vitrim.terminal.screens.parity import print_parity


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tripled(root: Path, **entries: Any) -> Path:
    """The bundle with golden outputs that its graphs, which double, do not give."""
    golden = dict(np.load(root / "golden.npz"))
    golden["logits"] = golden["logits"] * np.float32(1.5)
    np.savez(root / "golden.npz", **golden)
    write_manifest(root, {"vitrim": "0"}, ["vitrim"], **entries)
    return root


def test_the_manifest_s_precision_reaches_the_builder(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.6.1")
    seen.inspection = fake_trt.inspection("Half", fused=False)
    root = doubling(tmp_path / "b", **FP16)
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
    manifest = verify_bundle(root, needs=("model.engine", "model.engine.json"))
    assert (manifest.engine, manifest.precision.to_json()) == ("built", FP16["precision"])
    assert manifest.target == "trt-8.6"
    assert json.loads((root / "parity.json").read_text())["engine"]["layers"]["precisions"] == {"fp16": 1}


def test_an_engine_of_a_further_size_is_that_size_s_alone(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("8.6.1")
    root = two_sizes(tmp_path / "b", "2x5", target="trt-8.6")
    before = contents(root)
    with pytest.raises(InputError, match="has no graphs for 3x3; it has 1x1, 2x5: export it anew with export.sizes$"):
        api.build(root, size=3, timing_cache=False)
    assert contents(root) == before
    result = api.build(root, size="2x5", timing_cache=False)
    assert result.passed
    manifest = verify_bundle(root, needs=("model.2x5.engine", "model.2x5.engine.json"))
    assert (manifest.engine, manifest.of("2x5").engine) == (None, "built")
    after = contents(root)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"model.2x5.engine", "model.2x5.engine.json", "parity.2x5.json", "manifest.json"}
    assert check_bundle(root, size="2x5", runtime="tensorrt").passed
    with pytest.raises(EnvironmentLackError, match=r"has no model\.engine: build it first"):
        check_bundle(root, runtime="tensorrt")


def test_the_screen_tells_precision_attention_and_options(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection, seen.dla = fake_trt.inspection("Half", fused=False), 1
    seen.on_dla = lambda layer: layer.name == "/blocks.0/topk"
    result = api.build(doubling(tmp_path / "b", **FP16), dla_core=0, timing_cache=False)
    out = StringIO()
    print_parity(result, Console(file=out, width=300))
    said = out.getvalue()
    assert "Engine: fp16, strongly typed because the graph holds fp16; all 1 matrix layers run in fp16" in said
    assert "Attention: 0 fused, 1 not: no rule of NVIDIA's is broken" in said
    assert "DLA core 0: 2 layers run on the GPU (/blocks.0/norm, /blocks.0/norm_1)" in said


def test_an_engine_in_another_precision_is_not_published(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Float")
    root = doubling(tmp_path / "b", **FP16)
    with pytest.raises(UnsupportedError, match="not fp16: 2 of 2"):
        build_bundle(root)
    assert "model.engine" not in verify_bundle(root).files
    assert not build_bundle(root, EngineOptions(strict=False)).engine.layers.passed
    assert "model.engine" in verify_bundle(root).files


def test_an_engine_of_another_precision_is_judged_so_and_its_limits_are_kept(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Half")
    root = doubling(tmp_path / "b", **FP16)
    golden = dict(np.load(root / "golden.npz"))
    golden["logits"] = golden["logits"] * np.float32(1.001) + np.float32(1e-3)
    np.savez(root / "golden.npz", **golden)
    parity = Parity.read(root / "parity.json", "parity report")
    write_manifest(root, {"vitrim": "0"}, ["vitrim"], **FP16)
    assert not build_bundle(root).passed
    replace(parity, close=CLOSE).write(root / "parity.json")
    write_manifest(root, {"vitrim": "0"}, ["vitrim"], **FP16)
    assert build_bundle(root).passed
    written = Parity.read(root / "parity.json", "parity report")
    assert (written.close, [rung.strict for rung in written.rungs]) == (CLOSE, [True, False])
    assert written.smallest_atol == 0.0
    assert [rung.strict for rung in check_bundle(root).rungs] == [False, False]


def test_a_build_takes_the_precision(recorder: Any, tmp_path: Path) -> None:
    folder = named(tmp_path / "b", precision={"name": "fp16", "float32_nodes": ["/norm"]}, engine=False)
    assert build_bundle(folder, EngineOptions(workspace_mib=64), serialize=recorder).passed
    assert recorder.builds == {"model.onnx": ("fp16", ("/norm",))}
    manifest = verify_bundle(folder)
    assert manifest.precision == GraphPrecision("fp16", ("/norm",))
    assert manifest.engine == "built"


def test_an_engine_that_gives_other_outputs_is_not_published(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("10.3.0")
    root = tripled(doubling(tmp_path / "b"))
    before = contents(root)
    result = build_bundle(root)
    assert (result.passed, result.rungs[-1].first_offender) == (False, "logits")
    assert [rung.name for rung in result.rungs] == ["onnx", "tensorrt-10.3.0 = golden"]
    assert result.engine is not None  # what was built is said all the same
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_build_that_fails_leaves_the_bundle_and_no_staging_folder(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.failure = "Could not find any implementation for node X"
    root = doubling(tmp_path / "b")
    before = contents(root)
    with pytest.raises(UnsupportedError, match="any implementation for node X"):
        build_bundle(root)
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_second_build_takes_the_place_of_the_first(fake_trt: Any, tmp_path: Path) -> None:
    root = doubling(tmp_path / "b")
    for version in ("8.6.1", "10.3.0", "10.3.0"):
        fake_trt.install(version)
        result = build_bundle(root)
        assert result.engine is not None
        assert result.engine.tensorrt == version
        written = Parity.read(root / "parity.json", "parity report")
        assert written == result
        assert [rung.name for rung in written.rungs] == ["onnx", f"tensorrt-{version} = golden"]  # no older engine's
        assert json.loads((root / "model.engine.json").read_text())["tensorrt"] == version
    verify_bundle(root)


def test_a_build_waits_for_who_is_at_work_on_the_bundle(fake_trt: Any, tmp_path: Path) -> None:
    """What it builds into is what the other has published, not what was there before."""
    fake_trt.install("10.3.0")
    root, notes = doubling(tmp_path / "b"), list[str]()
    with locked(cache_folder(root), notes.append):
        second = threading.Thread(target=build_bundle, args=(root,), kwargs={"note": notes.append})
        second.start()
        while not notes and second.is_alive():
            time.sleep(0.01)
        assert notes == [
            f"process {os.getpid()} is at work on the same output ({tmp_path / '.b.cache'}); waiting for it"
        ]
        manifest = verify_bundle(root)
        assert manifest.engine is None
        (root / "README.md").write_text("published meanwhile")
        renew_manifest(root, manifest)
    second.join(60)
    assert verify_bundle(root, needs=("README.md", "model.engine")).engine == "built"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_a_killed_run_left_aside_is_built(fake_trt: Any, tmp_path: Path) -> None:
    """Of a system without exchange, killed between the two renames."""
    fake_trt.install("10.3.0")
    root, holder = doubling(tmp_path / "b"), tmp_path / ".b.1.abcdefgh.staging"
    holder.mkdir()
    write_marker(holder)
    root.rename(holder / "old")
    assert build_bundle(root).passed
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_build_refuses_strangers_in_its_way_before_it_begins(recorder: Any, tmp_path: Path) -> None:
    root = named(tmp_path / "b", engine=False)
    (tmp_path / "link").symlink_to(root)
    (tmp_path / ".b.cache").mkdir()
    (tmp_path / ".b.cache" / "mine").write_text("mine")
    inside = EngineOptions(timing_cache=root / "timings")
    for place, options, said in (
        (root, EngineOptions(), "is no cache of vitrim's"),
        (tmp_path / "link", EngineOptions(), "is a file or a link"),
        (root, inside, "lies in the bundle"),
    ):
        with pytest.raises(InputError, match=said):
            build_bundle(place, options, serialize=recorder)
    assert recorder.builds == {}
    assert (tmp_path / ".b.cache" / "mine").read_text() == "mine"


def test_what_keeps_from_building_is_said_before_anything_is_done(recorder: Any, tmp_path: Path) -> None:
    root = named(tmp_path / "b", engine=False)
    recorder.reason = "TensorRT finds no GPU"
    with pytest.raises(EnvironmentLackError) as caught:
        build_bundle(root, serialize=recorder)
    assert str(caught.value) == "TensorRT finds no GPU"
    assert recorder.builds == {}
    (root / "dense.onnx").write_text("changed")
    with pytest.raises(InputError, match=r"dense\.onnx is not the file that was published"):
        build_bundle(root, serialize=recorder)


def test_a_bundle_for_tensorrt_for_rtx_has_its_builder_and_is_not_called_proven_without_a_gpu(
    rtx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = doubling(tmp_path / "b", target="trt-rtx")
    result = api.build(root, capabilities=["8.6"])
    assert rtx.config.capabilities == {0: "86"}
    assert result.engine is not None
    assert (result.passed, result.engine.family, result.engine.capabilities) == (True, "rtx", ("8.6",))
    told = "TensorRT for RTX 1.7.1.116 builds engines here, but running one needs a GPU, and there is none"
    assert result.engine_not_checked == told
    assert [rung.name for rung in result.rungs] == ["onnx"]
    kept = json.loads((root / "parity.json").read_text())
    assert (kept["engine_not_checked"], [rung["name"] for rung in kept["rungs"]]) == (told, ["onnx"])
    stream = StringIO()
    print_parity(result, Console(file=stream, width=200))
    assert f"Note: the engine was not checked: {told}" in stream.getvalue()

    checked = check_bundle(root)
    assert (checked.passed, checked.engine_not_checked) == (True, told)
    with pytest.raises(EnvironmentLackError, match=f"nothing was checked: {told}"):
        check_bundle(root, runtime="tensorrt")
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 4090", "compute_capability": "8.9"})
    other = check_bundle(root).engine_not_checked
    assert other == "it is for GPUs of compute capability 8.6, and here it is 8.9"
    monkeypatch.setattr(gpu, "cuda_device", lambda: {"gpu": "RTX 3090", "compute_capability": "8.6"})
    proven = check_bundle(root)
    assert proven.engine_not_checked is None
    assert [rung.name for rung in proven.rungs] == ["onnxruntime-cpu = golden", "tensorrt-rtx-1.7.1.116 = golden"]
    again = api.build(root)  # in the place of the first
    assert again.engine is not None
    assert (again.engine.capabilities, again.engine_not_checked) == ((), None)
    assert [rung.name for rung in again.rungs] == ["onnx", "tensorrt-rtx-1.7.1.116 = golden"]
    assert [rung.name for rung in api.build(root).rungs] == ["onnx", "tensorrt-rtx-1.7.1.116 = golden"]


def test_without_its_package_nothing_of_a_bundle_for_tensorrt_for_rtx_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    root = doubling(tmp_path / "b", target="trt-rtx")
    before = contents(root)
    with pytest.raises(EnvironmentLackError, match="TensorRT for RTX cannot be imported"):
        api.build(root)
    assert contents(root) == before
    assert check_bundle(root).passed


def test_nothing_is_built_for_openvino(tmp_path: Path) -> None:
    root = doubling(tmp_path / "b", target="openvino")
    with pytest.raises(InputError, match="b needs no build: none belongs to openvino: OpenVINO compiles the graph"):
        build_bundle(root)
