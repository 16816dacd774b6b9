"""TensorRT without TensorRT: branches by version against a stand-in, identities, messages.

What a stand-in cannot show (that TensorRT takes these calls, and what it computes) is unverified here: building and
running on a GPU is in the tests marked `gpu`.
"""

from __future__ import annotations

import ctypes
import json
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.errors import EnvironmentLackError, InputError, UnsupportedError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime import caches
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.tensorrt import cuda, engine
from vitrim.exporter.runtime.tensorrt import versions as trt

EXPLICIT_BATCH, STRONGLY_TYPED = 1, 2


@pytest.mark.parametrize(
    ("text", "version", "typed", "typed_fp16", "flag"),
    [
        ("8.5.2.2", (8, 5), False, False, True),
        ("8.6.1", (8, 6), False, False, True),
        ("9.3.0", (9, 3), False, False, True),
        ("10.3.0", (10, 3), False, True, False),
        ("10.11.0.33", (10, 11), False, True, False),
        ("10.12.0.36", (10, 12), True, True, False),
        ("11.4.0.106", (11, 4), True, True, False),
    ],
)
def test_typing_goes_by_version(text: str, version: tuple[int, int], typed: bool, typed_fp16: bool, flag: bool) -> None:
    assert engine.version_of(text) == version
    assert trt.typing_for(version, "fp32").strong is typed
    fp16, int8 = trt.typing_for(version, "fp16"), trt.typing_for(version, "int8")
    assert (fp16.strong, fp16.fp16_flag, fp16.int8_flag) == (typed_fp16, flag, False)
    assert (int8.strong, int8.fp16_flag, int8.int8_flag) == (typed_fp16, flag, flag)
    assert not trt.typing_for(version, "fp32").fp16_flag


def test_a_version_that_cannot_be_read() -> None:
    with pytest.raises(EnvironmentLackError, match="'main' cannot be read"):
        engine.version_of("main")


WORDS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8"}
WEAK16 = {"FP16", "OBEY_PRECISION_CONSTRAINTS"}


def onnx_in(folder: Path) -> Path:
    """A file for the stand-in's parser, which takes any."""
    path = folder / "m.onnx"
    path.write_bytes(b"graph")
    return path


def quantized(layer: Any, dtype: Any) -> list[Any]:
    """A product that takes dequantized values, its weights transposed on the way, and one that takes none."""
    scale = layer("/q", dtype.FLOAT, kind="QUANTIZE")
    dequantize = layer("/dq", dtype.FLOAT, kind="DEQUANTIZE").fed(scale)
    turned = layer("/turn", dtype.FLOAT, kind="SHUFFLE").fed(dequantize)
    product = layer("/blocks.0/mlp/MatMul", dtype.FLOAT, kind="MATRIX_MULTIPLY").fed(scale, turned)
    plain = layer("/blocks.0/attn/MatMul", dtype.FLOAT, kind="MATRIX_MULTIPLY").fed(product, product)
    return [scale, dequantize, turned, product, plain]


@pytest.mark.parametrize(
    ("version", "precision", "network", "flags"),
    [
        ("8.5.2", "fp32", EXPLICIT_BATCH, set()),
        ("8.5.2", "fp16", EXPLICIT_BATCH, WEAK16),
        ("8.5.2", "int8", EXPLICIT_BATCH, WEAK16 | {"INT8"}),
        ("8.6.1", "fp16", EXPLICIT_BATCH, WEAK16),
        ("8.6.1", "int8", EXPLICIT_BATCH, WEAK16 | {"INT8"}),
        ("10.3.0", "fp32", 0, set()),
        ("10.3.0", "fp16", STRONGLY_TYPED, set()),
        ("10.3.0", "int8", STRONGLY_TYPED, set()),
        ("10.3.0", "bf16", STRONGLY_TYPED, set()),
        ("10.16.1", "fp32", STRONGLY_TYPED, set()),
        ("10.16.1", "int8", STRONGLY_TYPED, set()),
        ("11.4.1", "fp16", STRONGLY_TYPED, set()),
        ("11.4.1", "bf16", STRONGLY_TYPED, set()),
    ],
)
def test_networks_and_flags_of_each_version(
    fake_trt: Any, tmp_path: Path, version: str, precision: Any, network: int, flags: set[str]
) -> None:
    seen = fake_trt.install(version)
    seen.inspection = fake_trt.inspection(WORDS[precision])
    seen.layers = quantized(fake_trt.Layer, fake_trt.DataType) if precision == "int8" else None
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    identity = engine.build_engine(onnx, plan, precision=precision, workspace_mib=64)
    assert (seen.network.flags, seen.config.flags) == (network, flags)  # TF32, on by default, is off
    assert seen.config.limits == {"workspace": 64 << 20}
    assert seen.config.profiling_verbosity == "detailed"
    assert identity["engine_sha256"] == sha256(plan)
    assert identity["onnx_sha256"] == sha256(onnx)
    assert (identity["tensorrt"], "compute_capability" in identity, "driver" in identity) == (version, True, True)
    assert (identity["precision"], identity["layers"]["precisions"]) == (precision, {precision: 2})
    assert json.loads((tmp_path / "m.engine.json").read_text()) == identity


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "9.3.0"])
def test_bf16_is_refused_where_the_graph_cannot_ask_for_it(fake_trt: Any, tmp_path: Path, version: str) -> None:
    fake_trt.install(version)
    with pytest.raises(UnsupportedError, match=f"bf16 needs TensorRT 10.*but here is {version[:3]}"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_bf16_needs_ampere() -> None:
    with pytest.raises(UnsupportedError, match=r"needs compute capability 8\.0, but this GPU has 7\.5"):
        trt.refuse_options((10, 3), (7, 5), "bf16")
    trt.refuse_options((10, 3), (8, 7), "bf16")
    trt.refuse_options((10, 3), (7, 5), "fp16")
    with pytest.raises(InputError, match="no engine precision 'fp8'"):
        trt.typing_for((11, 0), "fp8")  # type: ignore[arg-type]


def test_int8_without_q_dq_pairs_is_refused(fake_trt: Any, tmp_path: Path) -> None:
    fake_trt.install("8.6.1")  # where it would calibrate without data
    with pytest.raises(InputError, match="no matrix product in it takes Q/DQ pairs"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", precision="int8")


@pytest.mark.parametrize("version", ["8.5.2", "10.3.0"])
def test_products_of_dequantized_values_are_found_through_transposes(fake_trt: Any, version: str) -> None:
    fake_trt.install(version)
    network = types.SimpleNamespace(layers=quantized(fake_trt.Layer, fake_trt.DataType))
    network.num_layers, network.get_layer = len(network.layers), network.layers.__getitem__
    assert trt.quantized_layers(sys.modules["tensorrt"], network) == {"/blocks.0/mlp/MatMul"}


def test_an_engine_in_another_precision_is_refused_and_not_saved(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.16.1")
    seen.inspection = fake_trt.inspection("Float")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    with pytest.raises(UnsupportedError, match=r"not fp16: 2 of 2 matrix layers .*/blocks\.0/mlp/MatMul.*not saved"):
        engine.build_engine(onnx, plan, precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    identity = engine.build_engine(onnx, plan, precision="fp16", strict=False)
    assert (identity["layers"]["passed"], identity["layers"]["wrong_share"]) == (False, 1.0)
    seen.inspection = json.dumps({"Layers": ["a", "b"], "Bindings": []})
    with pytest.raises(InputError, match="without details of its layers"):
        engine.build_engine(onnx, plan, precision="fp16")
    layers = engine.build_engine(onnx, plan, precision="fp16", strict=False)["layers"]
    assert (layers["passed"], "without details" in layers["verdict"]) == (False, True)
    seen.inspection = fake_trt.inspection("Half")
    assert set(layers) == set(engine.build_engine(onnx, plan, precision="fp16")["layers"])


def test_attention_that_is_not_fused_is_told_in_the_identity(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection = fake_trt.inspection("Float", fused=False)
    found = engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine")["layers"]["attention"]
    assert (found["fused"], found["not_fused"]) == (0, 1)
    assert found["reason"] == "attention in float32 is never fused: it needs fp16, bf16 or int8"


def test_a_timing_cache_is_read_again_but_never_a_stale_one(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan, folder = onnx_in(tmp_path), tmp_path / "m.engine", tmp_path / "timings"

    def loaded() -> bytes:
        engine.build_engine(onnx, plan, timing_cache=folder)
        return bytes(seen.config.loaded)

    assert [loaded(), loaded()] == [b"", b"timed "]
    monkeypatch.setattr(gpu, "driver", lambda root=None: "999.1")
    assert loaded() == b""  # another driver
    onnx.write_bytes(b"another graph")
    assert loaded() == b""
    onnx.with_name("m.onnx.data").write_bytes(b"other weights")
    assert loaded() == b""
    seen = fake_trt.install("10.3.1")
    assert loaded() == b""
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    assert all(name.endswith(".cache") for name in names)  # no locks, nothing half-written
    engine.build_engine(onnx, plan, timing_cache=False)
    assert len(list(folder.iterdir())) == 5
    engine.build_engine(onnx, plan)
    assert list((caches.cache_root() / "timing").iterdir())


def test_a_cache_folder_that_others_may_write_to_is_refused(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("10.3.0")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="no cache folder of your own"):
        engine.build_engine(onnx_in(tmp_path), tmp_path / "m.engine", timing_cache=folder)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="no cache folder of your own"):
        caches.private_folder(tmp_path / "link")
    monkeypatch.delenv("VITRIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.cache_root() == tmp_path / "xdg" / "vitrim"


def test_portable_engines_by_version(fake_trt: Any, tmp_path: Path) -> None:
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    seen = fake_trt.install("8.6.1")
    engine.build_engine(onnx, plan, version_compatible=True, hardware_compatible="ampere_plus")
    # The lean runtime inside would be host code, which the loader forbids.
    assert seen.config.flags == {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    assert seen.config.hardware_compatibility_level == 1
    assert [runtime.engine_host_code_allowed for runtime in seen.runtimes] == [False]
    seen = fake_trt.install("11.4.1")
    engine.build_engine(onnx, plan, hardware_compatible="same_compute_capability")
    assert (seen.config.flags, seen.config.hardware_compatibility_level) == (set(), 2)
    fake_trt.install("8.5.2")
    with pytest.raises(UnsupportedError, match=r"came with TensorRT 8\.6, but here is 8\.5"):
        engine.build_engine(onnx, plan, version_compatible=True)
    with pytest.raises(UnsupportedError, match=r"ampere_plus came with TensorRT 8\.6"):
        engine.build_engine(onnx, plan, hardware_compatible="ampere_plus")
    fake_trt.install("10.3.0")
    with pytest.raises(UnsupportedError, match=r"same_compute_capability came with TensorRT 10\.9"):
        engine.build_engine(onnx, plan, hardware_compatible="same_compute_capability")


def test_what_portability_a_gpu_allows() -> None:
    with pytest.raises(UnsupportedError, match=r"built on compute capability 8\.0 or newer"):
        trt.refuse_options((10, 3), (7, 5), "fp16", hardware_compatible="ampere_plus")
    with pytest.raises(UnsupportedError, match="not supported on a Jetson"):
        trt.refuse_options((10, 9), (8, 7), "fp16", hardware_compatible="same_compute_capability", jetson=True)
    with pytest.raises(InputError, match="no hardware compatibility 'any'"):
        trt.refuse_options((10, 9), None, "fp16", hardware_compatible="any")  # type: ignore[arg-type]
    assert trt.runs_on((8, 6), (10, 3))
    assert trt.runs_on((10, 3), (11, 4))
    assert not trt.runs_on((8, 6), (11, 4))
    assert not trt.runs_on((10, 16), (10, 3))


def test_a_version_compatible_engine_on_a_newer_tensorrt_needs_the_machine_s_own_lean_runtime(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("8.6.1")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan, version_compatible=True)
    seen = fake_trt.install("10.3.0")
    with pytest.raises(EnvironmentLackError, match=r"built by TensorRT 8\.6\.1: name .*libnvinfer_lean\.so\.8"):
        engine.TrtRunner(plan, onnx)
    monkeypatch.setenv(engine.LEAN_RUNTIME, "/opt/libnvinfer_lean.so.10")
    with pytest.raises(EnvironmentLackError, match=r"is no lean runtime of TensorRT 8\.6\.1"):
        engine.TrtRunner(plan, onnx)
    monkeypatch.setenv(engine.LEAN_RUNTIME, "/opt/libnvinfer_lean.so.8")
    with engine.TrtRunner(plan, onnx) as runner:
        assert runner.shape == (2, 3)
    assert all(runtime.engine_host_code_allowed is False for runtime in seen.runtimes[-2:])
    fake_trt.install("11.4.1")
    with pytest.raises(InputError, match=r"built for tensorrt 8\.6\.1, but here it is 11\.4\.1"):
        engine.TrtRunner(plan, onnx)


def test_a_dla_takes_what_it_can_and_the_rest_is_named(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    seen.inspection, seen.dla = fake_trt.inspection("Half"), 2
    seen.on_dla = lambda layer: layer.name == "/blocks.0/topk"
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    identity = engine.build_engine(onnx, plan, precision="fp16", dla_core=1)
    assert (seen.config.default_device_type, seen.config.DLA_core, seen.config.flags) == ("dla", 1, {"GPU_FALLBACK"})
    assert (identity["dla_core"], identity["dla_fallback"]) == (1, ["/blocks.0/norm", "/blocks.0/norm_1"])
    assert seen.runtimes[-1].DLA_core == 1
    engine.TrtRunner(plan, onnx).close()
    assert seen.runtimes[-1].DLA_core == 1
    with pytest.raises(InputError, match="no DLA core 2 here; there are 2"):
        engine.build_engine(onnx, plan, precision="fp16", dla_core=2)
    with pytest.raises(UnsupportedError, match="fp16 and int8 only, but the graph is fp32"):
        engine.build_engine(onnx, plan, dla_core=0)
    seen.on_dla = lambda layer: False
    with pytest.raises(UnsupportedError, match="none of the graph's layers runs on a DLA"):
        engine.build_engine(onnx, plan, precision="fp16", dla_core=0)
    seen.dla = 0
    with pytest.raises(UnsupportedError, match="finds no DLA here"):
        engine.build_engine(onnx, plan, precision="fp16", dla_core=0)


def test_a_cuda_graph_is_captured_once_and_replayed(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    with engine.TrtRunner(plan, onnx, cuda_graph=True) as runner:
        for step in range(4):
            np.testing.assert_array_equal(runner(image + step)["logits"], 2 * (image + step))
        runner.infer()
        assert seen.enqueued == 2  # one plain run, one for the capture
        assert seen.cuda.calls == ["begin", "end", "instantiate", "destroy graph"] + 5 * ["launch"]
    assert seen.cuda.calls[-1] == "destroy"


@pytest.mark.parametrize("failing", ["begin", "end", "instantiate", "launch"])
def test_what_cuda_refuses_is_said(fake_trt: Any, tmp_path: Path, failing: str) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)
    seen.cuda.failing = {failing: 900}
    told = r"cuda\w+ failed with CUDA error 900 \(operation not permitted.*run without a CUDA graph"
    with pytest.raises(UnsupportedError, match=told), engine.TrtRunner(plan, onnx, cuda_graph=True) as runner:
        runner.infer()  # only this fails to launch; the others fail before
    assert not seen.cuda.memory


def test_work_that_fails_during_capture_ends_it(fake_trt: Any) -> None:
    library = fake_trt.Cuda()

    def fail() -> None:
        raise UnsupportedError("the engine failed to run")

    with pytest.raises(UnsupportedError, match="the engine failed to run"):
        cuda.Cuda(library).capture(fail)
    assert library.calls == ["begin", "end", "destroy graph"]


def test_the_real_cuda_runtime_is_called_and_its_refusal_told() -> None:
    found = [path for path in map(Path, sys.path) if (path / "nvidia").is_dir()]
    libraries = [str(path) for root in found for path in (root / "nvidia").glob("*/lib/libcudart.so.*")]
    if not libraries or gpu.cuda_device() is not None:
        pytest.skip("needs the CUDA runtime of pip, and no GPU")
    with pytest.raises(UnsupportedError, match=r"cudaStreamCreate failed with CUDA error \d+ \([a-zA-Z]"):
        cuda.Cuda(cuda.declare(ctypes.CDLL(libraries[0])))
    with pytest.raises(EnvironmentLackError, match="does not work with this driver"):
        cuda.load(lambda: libraries)


def test_without_a_cuda_runtime_the_runner_says_so(
    fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_trt.install("10.3.0")
    onnx, plan = onnx_in(tmp_path), tmp_path / "m.engine"
    engine.build_engine(onnx, plan)

    monkeypatch.setattr(cuda, "load", partial(fake_trt.load, lambda: ["none/libcudart.so"]))
    with pytest.raises(EnvironmentLackError, match=r"libcudart\) of 11\.4 or newer is not found: set LD_LIBRARY_PATH"):
        engine.TrtRunner(plan, onnx)


def test_pinned_nodes_stay_float32_on_8(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.5.2")
    seen.inspection = fake_trt.inspection("Half")
    (tmp_path / "m.onnx").write_bytes(b"graph")
    pinned = {"/blocks.0/norm", "/blocks.0/topk", "/blocks.0/weight"}
    engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned=pinned)
    norm, norm_1, topk, weight = seen.network.layers
    assert [layer.precision for layer in (norm, norm_1, topk, weight)] == [fake_trt.DataType.FLOAT] * 3 + [None]
    assert topk.output_types == {0: fake_trt.DataType.FLOAT}  # the indices stay integers
    with pytest.raises(InputError, match="no node /blocks.9/norm"):
        engine.build_engine(
            tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned={"/blocks.9/norm", "/blocks.0/norm"}
        )
    engine.build_engine(  # dense and floor have not every node of the pruned graph
        tmp_path / "m.onnx", tmp_path / "m.engine", precision="fp16", pinned={"/blocks.9/norm"}, pins_may_miss=True
    )


def test_refusals_are_one_line_and_leave_nothing(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("8.6.1")
    with pytest.raises(InputError, match=r"none\.onnx"):
        engine.build_engine(tmp_path / "none.onnx", tmp_path / "m.engine")
    (tmp_path / "m.onnx").write_bytes(b"graph")
    seen.complaint = "No importer registered\nfor op: Gelu"
    with pytest.raises(
        UnsupportedError, match=r"8\.6\.1 refuses .* node 7: No importer registered for op: Gelu; `vitrim"
    ):
        engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine")
    seen.complaint, seen.failure = None, "Could not find any implementation for node X"
    with pytest.raises(UnsupportedError, match="cannot build .* any implementation for node X"):
        engine.build_engine(tmp_path / "m.onnx", tmp_path / "m.engine")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_an_engine_is_loaded_without_host_code_and_runs(fake_trt: Any, tmp_path: Path) -> None:
    seen = fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    with engine.TrtRunner(plan, onnx) as runner:
        assert seen.runtimes[-1].engine_host_code_allowed is False
        assert (runner.batch, runner.shape, runner.outputs, runner.name) == (2, (2, 3), ["logits"], "tensorrt-10.3.0")
        first = runner(image)["logits"]
        runner(image + 1)
        np.testing.assert_array_equal(first, 2 * image)  # a copy, not the buffer of the next run
        for wrong in (image[:1], image.astype(np.float64)):
            with pytest.raises(InputError, match=r"takes float32 \[2, 3\]"):
                runner(wrong)
        assert len(seen.cuda.memory) == 2
    assert not seen.cuda.memory
    runtimes = len(seen.runtimes)
    plan.write_bytes(plan.read_bytes() + b"\0")
    with pytest.raises(InputError, match="its hash differs"):
        engine.TrtRunner(plan, onnx)
    assert len(seen.runtimes) == runtimes  # refused before TensorRT saw it
    plan.write_bytes(b"no plan of this TensorRT")
    identity = json.loads(engine.sidecar(plan).read_text()) | {"engine_sha256": sha256(plan)}
    engine.sidecar(plan).write_text(json.dumps(identity))
    with pytest.raises(InputError, match=r"10\.3\.0 cannot load .*build it on this machine"):
        engine.TrtRunner(plan, onnx)


def test_dynamic_engines_are_refused(fake_trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_trt.install("10.3.0")
    onnx, plan = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.write_bytes(b"graph")
    engine.build_engine(onnx, plan)
    monkeypatch.setattr(fake_trt.Engine, "get_tensor_shape", lambda self, name: (-1, 3))
    with pytest.raises(InputError, match="shapes must be static"):
        engine.TrtRunner(plan, onnx)


def jetson(root: Path) -> Path:
    (root / "etc").mkdir()
    (root / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    return root


def test_the_lack_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(trt, "_SYSTEM_ROOT", tmp_path)
    assert "pip install 'vitrim[tensorrt]'" in str(engine.why_not())
    jetson(tmp_path)
    assert "sudo apt install python3-libnvinfer" in str(engine.why_not())
    with pytest.raises(EnvironmentLackError, match="TensorRT cannot be imported"):
        engine.build_engine("a.onnx", "a.engine")
    assert "nvidia-l4t-dla-compiler" in trt.tensorrt_remedy("libnvdla_compiler.so: cannot open", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    assert "is empty, its libraries are missing" in str(engine.why_not())


def test_a_tensorrt_that_is_too_old_is_refused(fake_trt: Any) -> None:
    fake_trt.install("8.2.1")
    assert "8.2.1 is too old: vitrim needs 8.5" in str(engine.why_not())


def test_without_a_gpu_tensorrt_s_own_reason_is_told(fake_trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trt.install("8.6.0")

    def no_gpu(logger: Any) -> None:  # as 8.6.0 does it, measured
        logger.log(2, "CUDA initialization failure with error: 35. Please check your CUDA installation: http://x")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", no_gpu)
    assert str(engine.why_not()).startswith(
        "TensorRT 8.6.0 finds no GPU (CUDA initialization failure with error: 35): check nvidia-smi"
    )


class Driver:
    """CUDA's driver library, answering for an Orin."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.failing

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuDriverGetVersion(self, value: Any) -> int:  # noqa: N802
        value._obj.value = 12060
        return 0


def test_the_gpu_is_asked_of_the_driver(tmp_path: Path) -> None:
    assert gpu.cuda_device(Driver) == {"gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6"}
    assert gpu.cuda_device(lambda: Driver(failing=100)) is None

    def missing() -> None:
        raise OSError("libcuda.so.1")

    assert gpu.cuda_device(missing) is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    version = tmp_path / "proc/driver/nvidia/version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan\n")
    assert gpu.driver(tmp_path) == "570.86.15"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n")
    assert gpu.driver(tmp_path) == "540.4.0"


def test_an_engine_from_elsewhere_is_never_loaded(tmp_path: Path) -> None:
    plan, onnx = tmp_path / "model.engine", tmp_path / "model.onnx"
    plan.write_bytes(b"native code")
    onnx.write_bytes(b"graph")
    here = {"tensorrt": "10.3.0", "gpu": "Orin", "machine": "aarch64"}
    with pytest.raises(InputError, match=r"no readable model\.engine\.json"):
        engine.check_identity(plan, onnx, here)
    identity = {"engine_sha256": sha256(plan), "onnx_sha256": sha256(onnx), **here}
    engine.sidecar(plan).write_text(json.dumps(identity))
    engine.check_identity(plan, onnx, here)
    with pytest.raises(InputError, match=r"built for tensorrt 10\.3\.0, but here it is 11\.4"):
        engine.check_identity(plan, onnx, here | {"tensorrt": "11.4"})
    engine.check_identity(plan, onnx, here | {"driver": "999"})  # engines outlive an update of the driver
    with pytest.raises(InputError, match="built for gpu Orin, but here it is H200"):
        engine.check_identity(plan, onnx, here | {"gpu": "H200"})
    portable = {"compute_capability": "8.6", "hardware_compatible": "ampere_plus", "version_compatible": True}
    engine.sidecar(plan).write_text(json.dumps(identity | portable))
    engine.check_identity(plan, onnx, here | {"gpu": "H200", "compute_capability": "9.0", "tensorrt": "11.4.1"})
    with pytest.raises(InputError, match=r"compute_capability 8\.6, but here it is 7\.5"):
        engine.check_identity(plan, onnx, here | {"gpu": "T4", "compute_capability": "7.5"})
    with pytest.raises(InputError, match=r"tensorrt 10\.3\.0, but here it is 10\.0\.1"):  # older
        engine.check_identity(plan, onnx, here | {"compute_capability": "8.6", "tensorrt": "10.0.1"})
    same = portable | {"hardware_compatible": "same_compute_capability"}
    engine.sidecar(plan).write_text(json.dumps(identity | same))
    engine.check_identity(plan, onnx, here | {"gpu": "A10", "compute_capability": "8.6"})
    with pytest.raises(InputError, match="compute_capability"):
        engine.check_identity(plan, onnx, here | {"gpu": "H200", "compute_capability": "9.0"})
    engine.sidecar(plan).write_text(json.dumps(identity))
    onnx.write_bytes(b"another graph")
    with pytest.raises(InputError, match="from another graph"):
        engine.check_identity(plan, onnx, here)
    plan.write_bytes(b"changed code")
    with pytest.raises(InputError, match="its hash differs"):
        engine.check_identity(plan, onnx, here)


GPU = pytest.mark.skipif(engine.why_not() is not None, reason=f"no engine can be built here: {engine.why_not()}")


def half(graph: Path, made: Path) -> None:
    """The graph in fp16 with float32 inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(graph), keep_io_types=True)
    onnx.save(model, made)


def with_pairs(graph: Path, made: Path, image: np.ndarray) -> None:
    """The graph with Q/DQ pairs around its MLPs' products, symmetric."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{onnx.load(graph).graph.input[0].name: image}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    constants = {value.name for value in onnx.load(graph).graph.initializer}
    products = [
        node.name
        for node in onnx.load(graph).graph.node
        if node.op_type in ("MatMul", "Gemm") and constants & set(node.input)
    ]
    quantize_static(
        graph,
        made,
        Once(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=products,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def pruned_graph(folder: Path) -> tuple[Any, Path, np.ndarray]:
    """A small pruned model in PyTorch, its graph for the oldest target, and a batch of images."""
    from helpers import budget_for, small_vit

    from vitrim.exporter.core.targets import get_target
    from vitrim.exporter.graph.files import save
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.trace import trace
    from vitrim.exporter.pruning.vit import PrunedViT, TorchRunner

    model = small_vit()
    pruned = PrunedViT(model, budget_for(model, {1: 11, 2: 6}, similar=2), ("logits", "kept"))
    graph, _ = rewrite(trace(pruned, 2), get_target("trt-8.5"))
    save(graph, folder / "m.onnx")
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    return TorchRunner(pruned, 2), folder / "m.onnx", image


def test_the_graphs_of_the_gpu_tests_are_what_they_say(tmp_path: Path) -> None:
    import onnx

    _, graph, image = pruned_graph(tmp_path)
    half(graph, tmp_path / "half.onnx")
    types_there = {value.data_type for value in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types_there
    assert onnx.TensorProto.FLOAT not in types_there
    with_pairs(graph, tmp_path / "int8.onnx", image)
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count("QuantizeLinear") >= 12


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_build_run_and_compare_on_a_gpu(tmp_path: Path, cuda_graph: bool) -> None:
    from vitrim.exporter.runtime.parity import compare

    torch_runner, graph, image = pruned_graph(tmp_path)
    identity = engine.build_engine(graph, tmp_path / "m.engine")
    assert set(identity["layers"]["precisions"]) <= {"fp32"}
    with engine.TrtRunner(tmp_path / "m.engine", graph, cuda_graph=cuda_graph) as runner:
        found = [runner(image) for _ in range(3)][-1]
    rung = compare("engine", torch_runner(image), found, atol=1e-2, tie=1e-3)
    assert rung.passed, rung.reason


@pytest.mark.gpu
@GPU
def test_fp16_runs_in_fp16_on_a_gpu(tmp_path: Path) -> None:
    torch_runner, graph, image = pruned_graph(tmp_path)
    half(graph, tmp_path / "half.onnx")
    identity = engine.build_engine(tmp_path / "half.onnx", tmp_path / "m.engine", precision="fp16")
    assert identity["layers"]["passed"], identity["layers"]["verdict"]
    assert identity["layers"]["precisions"].get("fp16") or identity["layers"]["opaque"]
    with engine.TrtRunner(tmp_path / "m.engine", tmp_path / "half.onnx") as runner:
        logits = runner(image)["logits"]
    assert np.abs(logits - torch_runner(image)["logits"]).mean() < 5e-2


@pytest.mark.gpu
@GPU
def test_int8_runs_in_int8_on_a_gpu(tmp_path: Path) -> None:
    torch_runner, graph, image = pruned_graph(tmp_path)
    with_pairs(graph, tmp_path / "int8.onnx", image)
    # Not strict: this graph's other parts are float32 where typing is strong, which an exported one's are not.
    identity = engine.build_engine(tmp_path / "int8.onnx", tmp_path / "m.engine", precision="int8", strict=False)
    assert identity["layers"]["precisions"].get("int8") or identity["layers"]["opaque"], identity["layers"]
    with engine.TrtRunner(tmp_path / "m.engine", tmp_path / "int8.onnx") as runner:
        logits = runner(image)["logits"]
    assert np.corrcoef(logits.ravel(), torch_runner(image)["logits"].ravel())[0, 1] > 0.9
